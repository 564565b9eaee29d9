//! Builds anew when there is another migration: they are built in (`db::migrate`), and the compiler
//! does not see a new one by itself.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
