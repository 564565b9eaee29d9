//! Gives every executable the run path of libtorch, so that nothing has to be exported to run it.

use std::{env, path::Path};

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    // They are built in (db::migrate), and the compiler does not see a new one by itself.
    println!("cargo::rerun-if-changed=migrations");
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
    // `make setup-cuda` puts libtorch_cuda.so here; it is loaded at run time, so it need not be there now.
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rustc-link-arg=-Wl,-rpath,{root}/.deps/libtorch-cuda/torch/lib");
}
