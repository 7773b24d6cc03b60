//! Hashes of a request's keys, by which the policy `hash` chooses endpoints.

use std::sync::Arc;

use crate::request_key::RequestKey;

/// Hashes of the keys of one request, for all backends that it may be sent to.
#[derive(Debug, Clone, Default)]
pub struct HashKeys(Option<Arc<Vec<(RequestKey, u64)>>>);

impl HashKeys {
    /// Hashes the values of `keys`. A key without a value is left out: its call goes by load.
    pub fn of(keys: &[RequestKey], hash: impl Fn(&RequestKey) -> Option<u64>) -> Self {
        if keys.is_empty() {
            return Self(None);
        }
        let hashed = keys.iter().filter_map(|key| Some((key.clone(), hash(key)?)));
        Self(Some(Arc::new(hashed.collect())))
    }

    pub(crate) fn get(&self, key: &RequestKey) -> Option<u64> {
        let (_, hash) = self.0.as_ref()?.iter().find(|(known, _)| known == key)?;
        Some(*hash)
    }
}
