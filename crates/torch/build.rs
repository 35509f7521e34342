//! Compiles `csrc/` against libtorch: the borders once, the plain loops once for each instruction set.

use std::{env, fs, path::PathBuf};

/// Files that are compiled as one unit each, since reading ATen's headers takes longer than compiling all that is ours.
const UNITS: [(&str, &[&str]); 2] = [
    ("operators", &["layers", "dropout", "train", "divergence", "recompute", "rows", "decode"]),
    ("collectives", &["store", "group"]),
];

/// Instruction sets of the loops, with the flags that turn them on; the CPU's own is chosen at run time.
const VARIANTS: [(&str, &[&str]); 3] =
    [("base", &[]), ("avx2", &["-mavx2", "-mfma"]), ("avx512", &["-march=x86-64-v4", "-mprefer-vector-width=512"])];

fn build() -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).pic(true).std("c++17").opt_level(3).flag("-fopenmp");
    build
}

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let link = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../.libtorch");
    let libtorch = env::var_os("LIBTORCH").map_or(link, PathBuf::from);
    let include = libtorch.join("include");
    assert!(include.join("ATen").is_dir(), "{} has no ATen headers; run `make setup`", include.display());
    let mut border = build();
    border
        .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
        .flag(format!("-isystem{}", include.display()))
        .flag(format!("-isystem{}", include.join("torch/csrc/api/include").display()))
        .flag("-isystemcsrc/stubs")
        .include("csrc")
        // ATen/ATen.h then declares no operator: each file includes those that it calls.
        .define("AT_PER_OPERATOR_HEADERS", None)
        .files(UNITS.map(|(name, files)| unit(name, files)));
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        let nvidia = libtorch.join("../nvidia");
        assert!(nvidia.is_dir(), "{} is not there; the feature cuda is built by `make build-cuda`", nvidia.display());
        for folder in ["cu13/include", "cu13/include/cccl", "nccl/include"] {
            border.flag(format!("-isystem{}", nvidia.join(folder).display()));
        }
        border.define("JOUST_CUDA", None).file("csrc/gpu.cpp");
    }
    border.compile("joust_torch");
    let wide = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let mut kernels = Vec::new();
    for (name, flags) in VARIANTS.into_iter().take(if wide { VARIANTS.len() } else { 1 }) {
        let mut variant = build();
        variant.define("JOUST_ISA", name).flag("-fno-math-errno").flag("-fno-trapping-math").file("csrc/kernels.cpp");
        for flag in flags {
            variant.flag(flag);
        }
        kernels.extend(variant.out_dir(out_dir(name)).compile_intermediates());
    }
    if wide {
        let mut packed = build();
        packed.flag("-march=x86-64-v4").flag("-mavx512bf16").file("csrc/packed.cpp");
        kernels.extend(packed.out_dir(out_dir("packed")).compile_intermediates());
    }
    cc::Build::new().objects(kernels).compile("joust_kernels");
    // libtorch brings the same libgomp, so that its threads are the ones that run our loops.
    println!("cargo:rustc-link-lib=dylib=gomp");
}

/// Writes the unit that includes `files`.
fn unit(name: &str, files: &[&str]) -> PathBuf {
    let path = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join(format!("{name}.cpp"));
    let text: String = files.iter().map(|file| format!("#include \"{file}.cpp\"\n")).collect();
    fs::write(&path, text).expect("OUT_DIR is writable");
    path
}

/// One folder a variant, since the objects share the name of their source.
fn out_dir(variant: &str) -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join(variant)
}
