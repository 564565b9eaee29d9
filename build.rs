//! Builds anew when there is another migration, or another file of the dashboard: they are built in
//! (`db::migrate`, `http::ui`), and the compiler does not see a new one by itself.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=migrations");
    // A path that does not exist would count as changed each time.
    let built = "ui/dist";
    let watched = if Path::new(built).exists() {
        built
    } else {
        "ui"
    };
    println!("cargo::rerun-if-changed={watched}");
}
