//! `--device` in a build without CUDA: the CPU is taken, a GPU is refused before anything is opened.
#![cfg(not(feature = "cuda"))]

use std::process::{Command, Output};

fn joust(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_joust")).args(arguments).output().expect("joust starts")
}

#[test]
fn a_gpu_is_refused_and_the_doctor_says_why() {
    for device in ["cuda", "cuda:1"] {
        let refused = joust(&["--device", device, "run", "absent.toml"]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{told}");
        assert!(told.contains("built without CUDA") && told.contains("make build-cuda"), "{told}");
        assert!(!told.contains("absent.toml"), "{told}");
    }
    let unknown = joust(&["--device", "gpu", "presets"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("expected auto, cpu, cuda or cuda:N"));
    for device in ["auto", "cpu"] {
        let found = joust(&["doctor", "--device", device]);
        assert!(found.status.success());
        let told = String::from_utf8_lossy(&found.stdout).into_owned();
        assert!(told.contains("ok    CUDA: not in this build"), "{told}");
    }
}
