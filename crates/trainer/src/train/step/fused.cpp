// Optimizer steps of a tensor in one pass, by the operators behind PyTorch's `fused=True`. tch has no name for them.

#include <cstddef>
#include <exception>
#include <optional>

#include "../../models/message.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>

namespace {

// True where `compute` fails; then with a message.
template <typename Compute>
bool fails(Compute compute, char* message, size_t message_bytes) {
    try {
        compute();
        return false;
    } catch (const std::exception& error) {
        rehead::write_message(error, message, message_bytes);
        return true;
    }
}

}  // namespace

extern "C" {

// The tensors of a step, dense and in one order in memory.
struct rehead_tensors {
    at::Tensor* weight;
    at::Tensor* gradient;
    // SGD's momentum buffer, or AdamW's first moment.
    at::Tensor* first;
    // AdamW's second moment.
    at::Tensor* second;
};

struct rehead_rates {
    double rate;
    double weight_decay;
    // SGD's momentum, or AdamW's decay of the first moment.
    double beta1;
    double beta2;
    double epsilon;
};

// AdamW's step `step`, a tensor of one number.
bool rehead_adamw(
    const rehead_tensors* tensors, const at::Tensor* step, const rehead_rates* rates, char* message,
    size_t message_bytes) {
    const auto compute = [&] {
        at::_fused_adamw_(
            {*tensors->weight}, {*tensors->gradient}, {*tensors->first}, {*tensors->second}, {}, {*step}, rates->rate,
            rates->beta1, rates->beta2, rates->weight_decay, rates->epsilon, /*amsgrad=*/false, /*maximize=*/false,
            std::nullopt, std::nullopt);
    };
    return fails(compute, message, message_bytes);
}

// A step of SGD whose momentum buffer is already there.
bool rehead_sgd(
    const rehead_tensors* tensors, const rehead_rates* rates, bool nesterov, char* message, size_t message_bytes) {
    const auto compute = [&] {
        at::_fused_sgd_(
            {*tensors->weight}, {*tensors->gradient}, {*tensors->first}, rates->weight_decay, rates->beta1, rates->rate,
            /*dampening=*/0.0, nesterov, /*maximize=*/false, /*is_first_step=*/false, std::nullopt,
            std::nullopt);
    };
    return fails(compute, message, message_bytes);
}

}  // extern "C"
