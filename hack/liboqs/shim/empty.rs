// Cargo wants a target to resolve a package; there is no Rust code here.
