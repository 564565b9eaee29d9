//! Gives the executable, tests and examples the run path of libtorch, so that they run without
//! exported variables.

use std::{env, path::Path};

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
}
