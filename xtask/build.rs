//! One line, in place of a page of compiler errors, where there are no process groups.

fn main() {
    if std::env::var_os("CARGO_CFG_UNIX").is_none() {
        println!("cargo::error=cargo xtask runs on Linux and macOS; on Windows, run it inside WSL");
    }
}
