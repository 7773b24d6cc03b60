//! The file of endpoints: a list that other programs write, and that is read again whenever it changes.

use std::path::Path;

use super::mistake::Mistakes;
use super::model::Endpoint;
use super::reader::Read;
use super::sources::Sources;
use super::value::Value;

/// Endpoints of one backend. The file is taken as a whole or not at all; replace it in one step, by renaming.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointFile {
    /// Where the service is; at least one.
    pub endpoints: Vec<Endpoint>,
}

/// Reads a file of endpoints into `sources`, so that later mistakes can point into it.
pub fn load(path: &Path, sources: &mut Sources) -> Result<EndpointFile, Mistakes> {
    let source = sources.read(path)?;
    let base_dir = path.parent().unwrap_or(Path::new("."));
    super::read(source, sources, base_dir, &super::environment).map(|(file, _)| file)
}

impl Read for EndpointFile {
    const BEGINNING: Option<&'static str> =
        Some("a file of endpoints says `endpoints: [{ url: \"http://10.0.0.5:8080\" }]`");

    fn read(value: &Value<'_>) -> Option<Self> {
        value.fields(|f| {
            Some(Self {
                endpoints: f.required_list("endpoints")?,
            })
        })?
    }
}
