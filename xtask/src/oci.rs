//! The component and the WIT package as OCI image layouts, which `skopeo copy` pushes to a registry. Their
//! form is that of WebAssembly artefacts: one layer, and a configuration that says what it needs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use wac_graph::types::{Package, Types};
use wit_parser::Resolve;

use crate::{BUNDLED, Result, hexadecimal};

const LAYER: &str = "application/wasm";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Write `component` and `wit` into the directory.
pub(crate) fn write(root: &Path, directory: &Path) -> Result<()> {
    let component = fs::read(root.join(BUNDLED))?;
    let mut resolve = Resolve::default();
    // Without what is for the middleware alone.
    let (package, _) = resolve.push_dir(root.join("host/wit"))?;
    let wit = wit_component::encode(&resolve, package)?;
    let version = env!("CARGO_PKG_VERSION");
    layout(
        &directory.join("component"),
        &component,
        version,
        "The rules of sessions, without I/O",
    )?;
    layout(&directory.join("wit"), &wit, version, "The WIT package edge:session")
}

fn layout(directory: &Path, wasm: &[u8], version: &str, title: &str) -> Result<()> {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let blob = |bytes: &[u8], kind: &str| -> Result<Value> {
        let digest = hexadecimal(&Sha256::digest(bytes));
        fs::write(blobs.join(&digest), bytes)?;
        let digest = format!("sha256:{digest}");
        Ok(json!({ "mediaType": kind, "digest": digest, "size": bytes.len() }))
    };
    let layer = blob(wasm, LAYER)?;
    let mut types = Types::default();
    let package = Package::from_bytes("edge:session", None, wasm, &mut types)?;
    let world = &types[package.ty()];
    let config = json!({
        // The same bytes whenever it is made.
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [layer["digest"]],
        "component": {
            "exports": world.exports.keys().collect::<Vec<_>>(),
            "imports": world.imports.keys().collect::<Vec<_>>(),
            "target": null,
        },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(config.to_string().as_bytes(), CONFIG)?,
        "layers": [layer],
        "annotations": {
            "org.opencontainers.image.title": title,
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        },
    });
    let manifest = blob(manifest.to_string().as_bytes(), MANIFEST)?;
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(directory.join("index.json"), index.to_string())?;
    fs::write(directory.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
    Ok(())
}
