//! Reads the file of tenants, and checks each against the config.
//!
//! A file that has not changed is not read again: a reload for another reason must not cost the reading of a million
//! tenants.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::tenant_file::{self, Entry};
use crate::config::{self, Code, Mistake, Tenant};
use crate::files::Stamp;
use crate::limits::Mode;
use crate::plan::compile::compiler::Compiler;
use crate::plan::compile::limits;
use crate::plan::managed_files::TenantsRead;
use crate::plan::own_settings::OF_EACH;
use crate::setting::SettingId;
use crate::tenancy::directory::{DirectoryBuilder, TenantDirectory};
use crate::tenancy::own_terms::NoTerms;
use crate::tenancy::record::{Counted, RecordQuota, TenantRecord};
use crate::tenancy::{DirectoryPart, Tiers};

/// Reads the file of tenants. `Ok(None)` if the config names none; `Err` after a mistake.
pub(super) fn read(compiler: &mut Compiler<'_>) -> Result<Option<TenantsRead>, ()> {
    let Some(path) = &compiler.config.tenants_file else {
        return Ok(None);
    };
    compiler.look_after(path);
    let before = compiler.state.managed.tenants(path);
    if compiler.sources.reader().keeps(path) {
        let _ = compiler.sources.reader().read(path);
        if before.is_some() {
            return Ok(before);
        }
    }
    if let Some(before) = before.filter(|before| before.stamp.is_some() && before.stamp == Stamp::of(path)) {
        compiler.sources.reader().note(path, before.stamp);
        return Ok(Some(before));
    }
    let begun = compiler.sources.reader().begin(path);
    let read = match begun {
        Ok(()) => tenant_file::read(path),
        Err(error) => Err(Mistake::new(
            Code::Unreadable,
            None,
            format!("cannot read {}: {error}", path.display()),
        )),
    };
    let (text, stamp) = match read {
        Ok(read) => read,
        Err(mistake) => {
            compiler.sources.reader().note(path, Stamp::of(path));
            compiler.mistake(Mistake {
                at: path.span(),
                ..mistake
            });
            return Err(());
        }
    };
    compiler.sources.reader().note(path, Some(stamp));
    let mut builder = DirectoryBuilder::default();
    let mut by_tier: BTreeMap<String, Arc<TenantRecord>> = BTreeMap::new();
    let config = compiler.config;
    let mut add = |name: &str, entry: Entry<'_>| {
        let record = match entry {
            Entry::OfTier(tier) => match by_tier.get(tier) {
                Some(known) => Arc::clone(known),
                None => {
                    let record = builder.share(TenantRecord {
                        tier: Some(tier.into()),
                        ..TenantRecord::default()
                    });
                    by_tier.insert(tier.to_owned(), Arc::clone(&record));
                    record
                }
            },
            Entry::Whole(tenant) => builder.share(meant(tenant)),
        };
        if config.tenants.contains(name) {
            let message = format!("the tenant `{name}` stands in the config too");
            let hint = "take one of the two out".to_owned();
            return Err((Code::Conflict, message, Some(hint)));
        }
        if !builder.add(name, record) {
            let message = format!("`{name}` is written twice");
            return Err((
                Code::DuplicateKey,
                message,
                Some("merge the two, or take one out".to_owned()),
            ));
        }
        Ok(())
    };
    match tenant_file::read_each(path, &text, compiler.sources, &mut add) {
        Ok(()) => Ok(Some(TenantsRead {
            path: path.value.clone(),
            stamp: Some(stamp),
            directory: Arc::new(builder.finish()),
        })),
        Err(mistakes) => {
            for mistake in mistakes.iter() {
                compiler.mistake(Mistake {
                    at: mistake.at.or(path.span()),
                    ..mistake.clone()
                });
            }
            Err(())
        }
    }
}

/// Returns the tenants of the file for callers.
pub(super) fn part(compiler: &mut Compiler<'_>, read: &TenantsRead) -> DirectoryPart {
    DirectoryPart {
        tenants: Arc::clone(&read.directory),
        disabled: own_setting(compiler, "disabled"),
        has_store: compiler.config.limits_store.is_some(),
    }
}

/// Returns the id of a setting that each tenant of the file has of its own. Its place is that of the file's name.
pub(super) fn own_setting(compiler: &mut Compiler<'_>, field: &str) -> SettingId {
    let at = compiler.config.tenants_file.as_ref().and_then(|path| path.span());
    compiler.setting_at(&format!("{OF_EACH}{field}"), at)
}

/// Checks that every tenant of the file can be in force with the tiers of the config. `largest` is the cost of the
/// dearest request.
pub(super) fn check(compiler: &mut Compiler<'_>, read: &TenantsRead, tiers: &Tiers, largest: u64) {
    let mut wrong: Vec<(String, Vec<NoTerms>)> = Vec::new();
    read.directory.each_distinct(|name, record| {
        if let Err(reasons) = tiers.check(record, largest) {
            wrong.push((name.to_owned(), reasons));
        }
    });
    if wrong.is_empty() {
        return;
    }
    wrong.sort_by(|one, other| one.0.cmp(&other.0));
    let text = tenant_file::read(&read.path).map_or_else(|_| String::new(), |(text, _)| text);
    for (name, reasons) in wrong.into_iter().take(limits::MOST_NAMED) {
        for NoTerms { field, why } in reasons {
            let at = tenant_file::place(&read.path, &text, &name, &field, compiler.sources);
            let mut mistake = Mistake::new(Code::BadValue, at, format!("`tenants.{name}.{field}`: {why}"));
            if field == "tier" {
                mistake.code = Code::UnknownName;
                let names = compiler.config.tiers.names();
                let tier = read.directory.get(&name).and_then(|record| record.tier.clone());
                mistake.hint = tier.and_then(|tier| config::did_you_mean(&tier, names));
            }
            let at = mistake.at.or_else(|| compiler.config.tenants_file.as_ref()?.span());
            compiler.mistake(Mistake { at, ..mistake });
        }
    }
}

/// Returns the quotas of the file by name, as they stand in one of its records.
pub(super) fn quotas(directory: &TenantDirectory) -> BTreeMap<Arc<str>, RecordQuota> {
    let mut all = BTreeMap::new();
    directory.each_distinct(|_, record| {
        for (name, quota) in &record.quotas {
            all.entry(Arc::clone(name)).or_insert(*quota);
        }
    });
    all
}

/// Returns what is written for a tenant, without its places.
pub fn meant(written: &Tenant) -> TenantRecord {
    let Tenant {
        tier,
        rate,
        burst,
        in_flight,
        quotas,
        disabled,
        labels,
    } = written;
    let quota = |(name, quota): (&config::At<Arc<str>>, &config::Quota)| {
        let config::Quota {
            limit,
            every,
            mode,
            counted,
        } = quota;
        let quota = RecordQuota {
            limit: **limit,
            every: limits::every(**every),
            mode: match **mode {
                config::Mode::Enforce => Mode::Enforce,
                config::Mode::Shadow => Mode::Shadow,
            },
            counted: counted.as_ref().map(|counted| match **counted {
                config::Counted::Leased => Counted::Leased,
                config::Counted::Exact => Counted::Exact,
                config::Counted::Local => Counted::Local,
            }),
        };
        (Arc::clone(&name.value), quota)
    };
    TenantRecord {
        tier: tier.as_ref().map(|tier| tier.as_str().into()),
        rate: rate.as_ref().map(|rate| (rate.count, rate.per)),
        burst: burst.as_ref().map(|burst| **burst),
        in_flight: in_flight.as_ref().map(|cap| **cap),
        quotas: quotas.iter().map(quota).collect(),
        disabled: **disabled,
        labels: labels
            .iter()
            .map(|(name, text)| (Arc::clone(&name.value), text.as_str().into()))
            .collect(),
    }
}
