// Calls of operators that libtorch registers with its dispatcher and that tch has no name for:
// oneDNN's convolution or linear layer with what follows it (an activation, the sum with a shortcut) in
// one pass.
// Their schemas are those of ATen/native/mkldnn/RegisterMkldnnOpContextClass.cpp.

#include <cstdint>
#include <exception>
#include <optional>
#include <string_view>

#include "../message.h"

#include <ATen/TracerMode.h>
#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

namespace {

using Scalars = c10::List<std::optional<at::Scalar>>;
using Text = std::string_view;

using Convolution = at::Tensor(
    const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, at::IntArrayRef,
    at::IntArrayRef, at::IntArrayRef, int64_t, Text, Scalars, std::optional<Text>);
using ConvolutionAdd = at::Tensor(
    const at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
    at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, int64_t, Text, std::optional<at::Scalar>,
    std::optional<Text>, Scalars, std::optional<Text>);

using Linear = at::Tensor(
    const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, Text, Scalars,
    std::optional<Text>);

template <typename Signature>
c10::TypedOperatorHandle<Signature> find(const char* name, const char* overload) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<Signature>();
}

// The tensor that `compute` makes; null, with a message, where it fails.
template <typename Compute>
at::Tensor* made_by(Compute compute, char* message, size_t message_bytes) {
    try {
        return new at::Tensor(compute());
    } catch (const std::exception& error) {
        rehead::write_message(error, message, message_bytes);
        return nullptr;
    }
}

constexpr const char* CONVOLUTION = "mkldnn::_convolution_pointwise";

}  // namespace

extern "C" {

// True while torch records a TorchScript program: these operators do not exist everywhere.
bool rehead_is_tracing() {
    return at::tracer::impl::is_dispatch_enabled();
}

// What a convolution does beside its weights.
struct rehead_convolution {
    int64_t padding[2];
    int64_t stride[2];
    int64_t groups;
    // The name of an activation, and its numbers.
    const char* activation;
    double scalars[2];
    int64_t scalar_count;
};

// activation(convolution(x) + shortcut), all f32 or all bf16 on the CPU; `shortcut` and `bias` may be null.
// `weight` is packed by mkldnn_reorder_conv2d_weight. Returns a new tensor, or null with a message of at most
// `message_bytes` bytes.
at::Tensor* rehead_convolve(
    const at::Tensor* x, const at::Tensor* shortcut, const at::Tensor* weight,
    const at::Tensor* bias, const rehead_convolution* shape, char* message, size_t message_bytes) {
    const auto compute = [&] {
        const int64_t dilation[2] = {1, 1};
        const auto offset = bias == nullptr ? std::nullopt : std::optional<at::Tensor>(*bias);
        Scalars scalars;
        for (int64_t i = 0; i < shape->scalar_count; i++) {
            scalars.push_back(at::Scalar(shape->scalars[i]));
        }
        const at::IntArrayRef padding(shape->padding), stride(shape->stride);
        if (shortcut == nullptr) {
            static const auto convolve = find<Convolution>(CONVOLUTION, "");
            return convolve.call(
                *x, *weight, offset, padding, stride, dilation, shape->groups, shape->activation,
                scalars, std::nullopt);
        }
        static const auto convolve = find<ConvolutionAdd>(CONVOLUTION, "binary");
        const Text name(shape->activation);
        const auto activation = name == "none" ? std::nullopt : std::make_optional(name);
        return convolve.call(
            *x, *shortcut, *weight, offset, padding, stride, dilation, shape->groups, "add", 1.0,
            activation, scalars, std::nullopt);
    };
    return made_by(compute, message, message_bytes);
}

// The weight of a linear layer in the order that is best for so many rows.
at::Tensor* rehead_pack_linear(
    const at::Tensor* weight, int64_t rows, char* message, size_t message_bytes) {
    const auto compute = [&] {
        static const auto reorder =
            c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_reorder_linear_weight", "");
        torch::jit::Stack stack{*weight, rows};
        reorder.callBoxed(stack);
        return stack.front().toTensor();
    };
    return made_by(compute, message, message_bytes);
}

// activation(x * weight' + bias); `weight` is packed, `bias` and `algorithm` may be null.
at::Tensor* rehead_linear(
    const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias, const char* activation,
    const char* algorithm, char* message, size_t message_bytes) {
    const auto compute = [&] {
        static const auto multiply = find<Linear>("mkldnn::_linear_pointwise", "");
        const auto variant =
            algorithm == nullptr ? std::nullopt : std::make_optional<Text>(algorithm);
        const auto offset = bias == nullptr ? std::nullopt : std::optional<at::Tensor>(*bias);
        return multiply.call(*x, *weight, offset, activation, Scalars(), variant);
    };
    return made_by(compute, message, message_bytes);
}

}  // extern "C"
