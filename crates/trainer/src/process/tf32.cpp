// Settings of libtorch's context that tch has no name for.

#include <ATen/Context.h>

extern "C" {

void rehead_set_tf32(bool allowed) {
    at::globalContext().setAllowTF32CuDNN(allowed);
    at::globalContext().setAllowTF32CuBLAS(allowed);
}

bool rehead_tf32() {
    return at::globalContext().allowTF32CuDNN() && at::globalContext().allowTF32CuBLAS();
}
}
