//! Compiles the contract in `proto/` without protoc: messages by prost, the gRPC client and
//! server by tonic, the JSON mapping by pbjson, all from one descriptor set.

use std::{error::Error, fs, path::PathBuf};

use prost::Message as _;

const INCLUDE: &str = "../../proto";
const FILES: [&str; 7] = [
    "colophon/v1/freeze.proto",
    "colophon/v1/plan.proto",
    "colophon/v1/release.proto",
    "colophon/v1/tag.proto",
    "colophon/v1/tag_move.proto",
    "colophon/v1/upload.proto",
    "colophon/v1/watch.proto",
];
const PACKAGE: &str = ".colophon.v1";
const TIMESTAMP: (&str, &str) = (".google.protobuf.Timestamp", "crate::Timestamp");
const DURATION: (&str, &str) = (".google.protobuf.Duration", "crate::Duration");

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={INCLUDE}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);

    let mut compiler = protox::Compiler::new([INCLUDE])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let set = compiler.file_descriptor_set();
    // This encoding keeps the google.api.http options, which `set` as a typed value loses.
    let described = compiler.encode_file_descriptor_set();
    fs::write(out.join("colophon.v1.described.bin"), &described)?;

    let mut bare = protox::Compiler::new([INCLUDE])?;
    bare.include_imports(true).include_source_info(false).open_files(FILES)?;
    fs::write(out.join("colophon.v1.bin"), bare.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        .extern_path(TIMESTAMP.0, TIMESTAMP.1)
        .extern_path(DURATION.0, DURATION.1)
        .btree_map(PACKAGE)
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(set.clone())?;

    pbjson_build::Builder::new()
        .register_descriptors(&set.encode_to_vec())?
        .extern_path(TIMESTAMP.0, TIMESTAMP.1)
        .extern_path(DURATION.0, DURATION.1)
        .btree_map([PACKAGE])
        .emit_fields()
        .build(&[PACKAGE])?;
    Ok(())
}
