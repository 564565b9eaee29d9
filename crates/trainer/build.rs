//! Gives the executable, tests and examples the run path of libtorch, so that they run without
//! exported variables, and compiles what calls libtorch from C++.

use std::{env, path::Path};

/// Calls of operators that tch has no name for.
const SHIMS: [&str; 3] = [
    "src/models/fused/shim.cpp",
    "src/process/tf32.cpp",
    "src/train/step/fused.cpp",
];

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let libtorch = env::var("LIBTORCH").unwrap_or_else(|_| ".deps/libtorch/torch".into());
    let lib = Path::new(&libtorch).join("lib");
    let Ok(lib) = lib.canonicalize() else {
        println!(
            "cargo::error=libtorch is not at {}: run `make setup` first",
            lib.display()
        );
        return;
    };
    // Packages (docker/Dockerfile) keep libtorch beside the executables instead.
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/rehead/torch/lib");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // `make setup-cuda` puts libtorch_cuda.so here; it is loaded at run time, so it need not be
    // there now.
    let package = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&package)
        .ancestors()
        .find(|folder| folder.join("Cargo.lock").exists());
    if let Some(root) = root {
        println!(
            "cargo::rustc-link-arg=-Wl,-rpath,{}/.deps/libtorch-cuda/torch/lib",
            root.display()
        );
    }
    compile_shims(&Path::new(&libtorch).join("include"));
}

fn compile_shims(include: &Path) {
    for shim in SHIMS {
        println!("cargo::rerun-if-changed={shim}");
    }
    println!("cargo::rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    // As torch-sys compiles its own.
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", Some(abi.as_str()))
        .include(include)
        .include(include.join("torch/csrc/api/include"))
        .files(SHIMS)
        .compile("rehead_fused");
    // Behind the shims, for linkers that keep only what is asked for by what stands before.
    for library in ["torch_cpu", "c10"] {
        println!("cargo::rustc-link-lib={library}");
    }
}
