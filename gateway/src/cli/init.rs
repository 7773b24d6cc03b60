//! `gateway init`: writes a config to begin with.

use std::fs::File;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::path::PathBuf;

use super::{FAILED, OK};

const STARTER: &str = include_str!("starter.yaml");

#[derive(clap::Args)]
pub(super) struct Options {
    /// The file to write, which must not exist yet.
    #[arg(value_name = "FILE", default_value = "gateway.yaml")]
    file: PathBuf,
}

/// Writes the file and says what to do with it. Returns the exit code.
pub(super) fn init(options: &Options) -> u8 {
    let file = options.file.display();
    let created = File::options().write(true).create_new(true).open(&options.file);
    match created.and_then(|mut created| created.write_all(STARTER.as_bytes())) {
        Ok(()) => {
            let _ = writeln!(
                stdout(),
                "{file} is written: name your service in it, then\n  gateway check {file}\n  gateway run {file}"
            );
            OK
        }
        Err(error) => {
            let why = match error.kind() {
                ErrorKind::AlreadyExists => "it exists already and stays as it is".to_owned(),
                _ => error.to_string(),
            };
            let _ = writeln!(stderr(), "gateway init: {file}: {why}");
            FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::STARTER;
    use crate::config;
    use crate::control::reload;
    use crate::observe::{Observer, Target};
    use crate::plan::State;

    fn mistakes(text: &str) -> Option<String> {
        let loaded = config::parse("gateway.yaml", text, Path::new("."), &|_| None);
        loaded.err().map(|invalid| invalid.render(false))
    }

    #[test]
    fn it_is_good_as_it_is() {
        assert_eq!(mistakes(STARTER), None);
    }

    /// Returns the starter with its commented lines of YAML as lines of YAML.
    fn uncommented() -> String {
        let lines = STARTER.lines().map(|line| {
            let bare = line.trim_start();
            let is_yaml = bare.starts_with("# ") && !bare.ends_with('.') && bare.contains(": ") | bare.ends_with(':');
            match is_yaml && !bare.contains('`') && !bare.contains("yaml-language-server") {
                true => line.replacen("# ", "", 1) + "\n",
                false => line.to_owned() + "\n",
            }
        });
        lines.collect()
    }

    /// A commented key that is misspelt would be a mistake once somebody uncomments it.
    #[test]
    fn every_commented_section_is_good_once_it_is_uncommented() {
        let text = uncommented();
        assert!(
            text.matches("\n  home:").count() == 1 && text.contains("\ntenants:") && text.contains("\n  jwt:"),
            "{text}"
        );
        assert_eq!(mistakes(&text), None, "{text}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        std::fs::write(&path, text).unwrap();
        let keys = "keys:\n  - { id: a, tenant: acme, digest: \"sha256:0000000000000000000000000000000000000000000000000000000000000001\" }\n";
        for (name, content) in [
            ("keys.yaml", keys),
            ("admin.token", "0123456789abcdef0123456789abcdef\n"),
        ] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        for name in ["edge.pem", "edge.key"] {
            let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../fixtures/configs")
                .join(name);
            std::fs::copy(fixture, folder.path().join(name)).unwrap();
        }
        let state = State::new(Observer::start(&Target::Off).unwrap());
        if let Err(invalid) = reload::read(&path, &state, 1) {
            panic!("{}", invalid.render(false));
        }
    }
}
