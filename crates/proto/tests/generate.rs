//! Makes `src/gen/` from `proto/` and holds what is checked in against it; `JOUST_UPDATE=1 cargo test -p joust-proto --test generate`
//! updates the files. No protoc is needed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

const UPDATE: &str = "JOUST_UPDATE=1 cargo test -p joust-proto --test generate";

fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn proto_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.extend(proto_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn compile(with_sources: bool) -> FileDescriptorSet {
    let root = crate_folder().join("../../proto");
    let mut compiler = protox::Compiler::new([&root]).expect("the proto folder");
    compiler.include_source_info(with_sources).include_imports(true);
    compiler.open_files(proto_files(&root)).expect("valid proto files");
    compiler.file_descriptor_set()
}

fn generate() -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    tonic_prost_build::configure()
        .out_dir(folder.path())
        .btree_map(".")
        .bytes(".joust.learner.v1.WeightsChunk.data")
        .emit_rerun_if_changed(false)
        .compile_fds(compile(true))
        .expect("generates");
    let mut files: BTreeMap<String, Vec<u8>> = fs::read_dir(folder.path())
        .expect("readable")
        .map(|entry| entry.expect("readable"))
        .map(|entry| (entry.file_name().into_string().expect("UTF-8"), fs::read(entry.path()).expect("readable")))
        .filter(|(name, _)| name.starts_with("joust."))
        .collect();
    files.insert("joust.binpb".into(), compile(false).encode_to_vec());
    files
}

#[test]
fn generated_code_is_that_of_the_proto_files() {
    let folder = crate_folder().join("src/gen");
    let wanted = generate();
    if std::env::var_os("JOUST_UPDATE").is_some() {
        wanted.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).expect("writable"));
    }
    let found: BTreeMap<String, Vec<u8>> = fs::read_dir(&folder)
        .expect("readable")
        .map(|entry| entry.expect("readable").path())
        .map(|path| {
            (
                path.file_name().and_then(|name| name.to_str()).expect("UTF-8").to_owned(),
                fs::read(path).expect("readable"),
            )
        })
        .collect();
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&wanted), "files in {}; run `{UPDATE}`", folder.display());
    for (name, bytes) in &wanted {
        assert!(found[name] == *bytes, "src/gen/{name} is not what proto/ gives; run `{UPDATE}`");
    }
}

/// Paths of all declarations of a file, in the numbering of `SourceCodeInfo`, with their names.
fn declarations(file: &FileDescriptorProto) -> BTreeMap<Vec<i32>, String> {
    let mut all = BTreeMap::new();
    for (i, message) in (0..).zip(&file.message_type) {
        all.insert(vec![4, i], message.name().to_owned());
        // A map's entry message is nested and has no text of its own; joust nests no other message.
        assert!(message.nested_type.iter().all(|nested| nested.options.as_ref().is_some_and(|o| o.map_entry())));
        for (j, field) in (0..).zip(&message.field) {
            all.insert(vec![4, i, 2, j], format!("{}.{}", message.name(), field.name()));
        }
    }
    for (i, choice) in (0..).zip(&file.enum_type) {
        all.insert(vec![5, i], choice.name().to_owned());
        for (j, value) in (0..).zip(&choice.value) {
            all.insert(vec![5, i, 2, j], value.name().to_owned());
        }
    }
    for (i, service) in (0..).zip(&file.service) {
        all.insert(vec![6, i], service.name().to_owned());
        for (j, method) in (0..).zip(&service.method) {
            all.insert(vec![6, i, 2, j], format!("{}.{}", service.name(), method.name()));
        }
    }
    all
}

#[test]
fn every_declaration_is_commented() {
    let mut count = 0;
    for file in compile(true).file.iter().filter(|file| file.package().starts_with("joust.")) {
        let info = file.source_code_info.as_ref().expect("compiled with sources");
        for (path, name) in declarations(file) {
            let location = info.location.iter().find(|location| location.path == path).expect("a location");
            let comment = location.leading_comments().trim();
            assert!(comment.ends_with(['.', ':']) && comment.len() > 3, "{}: {name} has no comment", file.name());
            count += 1;
        }
    }
    assert!(count > 400, "{count}");
}

#[test]
fn mutating_requests_carry_an_idempotency_key() {
    // Reading calls, and those that name their work in another way: Heartbeat by its lease, answers by their seed, judgements inside
    // their options.
    const WITHOUT: &[&str] = &[
        "Get",
        "List",
        "Watch",
        "Fetch",
        "Export",
        "Heartbeat",
        "Generate",
        "Score",
        "Compare",
        "Rank",
        "Critique",
        "JudgeBatch",
    ];
    let set = compile(false);
    let messages: BTreeMap<String, Vec<String>> = set
        .file
        .iter()
        .flat_map(|file| file.message_type.iter().map(move |message| (file, message)))
        .map(|(file, message)| {
            let fields = message.field.iter().map(|field| field.name().to_owned()).collect();
            (format!(".{}.{}", file.package(), message.name()), fields)
        })
        .collect();
    let methods = set.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
    for method in methods.filter(|method| !WITHOUT.iter().any(|prefix| method.name().starts_with(prefix))) {
        let fields = &messages[method.input_type()];
        assert!(fields.iter().any(|field| field == "idempotency_key"), "{} has no idempotency key", method.name());
    }
}

#[test]
fn proto_files_are_short() {
    for path in proto_files(&crate_folder().join("../../proto")) {
        let lines = fs::read_to_string(&path).expect("readable").lines().count();
        assert!(lines <= 250, "{} has {lines} lines, at most 250", path.display());
    }
}
