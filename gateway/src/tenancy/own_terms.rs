//! Makes the terms of one tenant under one limit from what the tenant has of its own and what its tier has.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use policies::{CalendarQuota, Every, LeaseTerms, Quota, Ratio, WindowQuota};

use super::OwnTerms;
use super::record::{Counted, TenantRecord};
use crate::limits::Mode;
use crate::limits::kinds::Terms;
use crate::limits::leased::{LeasedTerms, WhenDown};
use crate::setting::SettingId;
use crate::store::CentralTerms;

/// Terms that a limit takes from a tenant's record.
#[derive(Debug, Clone)]
pub enum OwnPart {
    /// Rate and burst. What is left out comes from the tier.
    Rate {
        is_window: bool,
        rate: (NonZeroU64, Duration),
        burst: Option<NonZeroU64>,
    },
    InFlight,
    /// The quota of this name, with the period that it has everywhere.
    Quota(Arc<str>, Every),
}

/// Rule by which the terms of a tenant under a limit are made while the gateway runs.
#[derive(Debug, Clone)]
pub struct OwnRule {
    pub part: OwnPart,
    pub mode: Mode,
    /// The limit's counting in the shared store; `None` counts it in this process.
    pub lease: Option<LeaseRule>,
    pub setting: SettingId,
}

/// Counting of limits in the shared store.
#[derive(Debug, Clone, Copy)]
pub struct LeaseRule {
    pub share: Ratio,
    pub time: Duration,
    pub when_down: WhenDown,
    /// Whether no token is on lease.
    pub is_exact: bool,
}

/// Reason why a record gives no terms: the field and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoTerms {
    pub field: String,
    pub why: String,
}

impl OwnRule {
    /// Returns the terms of a tenant with this record; `None` if those of its tier hold.
    ///
    /// # Errors
    /// Why what is written cannot be counted.
    pub fn terms(&self, record: &TenantRecord) -> Result<Option<OwnTerms>, NoTerms> {
        let mut lease = self.lease;
        let (field, own, mode) = match &self.part {
            OwnPart::Rate { is_window, rate, burst } => {
                if record.rate.is_none() && record.burst.is_none() {
                    return Ok(None);
                }
                let field = if record.rate.is_some() { "rate" } else { "burst" };
                let (count, per) = record.rate.unwrap_or(*rate);
                let terms = if *is_window {
                    WindowQuota::new(count.get(), per)
                        .map(Terms::Window)
                        .map_err(|error| error.to_string())
                } else {
                    let burst = record.burst.or(*burst).map_or(count.get(), NonZeroU64::get);
                    Quota::new(count.get(), per, burst)
                        .map(Terms::Bucket)
                        .map_err(|error| error.to_string())
                };
                (field.to_owned(), terms, self.mode)
            }
            OwnPart::InFlight => match record.in_flight {
                Some(cap) => ("in_flight".to_owned(), Ok(Terms::InFlight(cap.get())), self.mode),
                None => return Ok(None),
            },
            OwnPart::Quota(name, every) => {
                let Some(quota) = record.quota(name) else {
                    return Ok(None);
                };
                let field = format!("quotas.{name}");
                if quota.every != *every {
                    let why = "it is counted by another period than elsewhere: give it another name".to_owned();
                    return Err(NoTerms { field, why });
                }
                lease = match (quota.counted, lease) {
                    (None, lease) => lease,
                    (Some(Counted::Local), None) => None,
                    (Some(Counted::Leased | Counted::Exact), Some(lease)) => Some(LeaseRule {
                        is_exact: quota.counted == Some(Counted::Exact),
                        ..lease
                    }),
                    _ => {
                        let why = "it is counted in another place than elsewhere: write the same `counted`, or give it \
                                   another name";
                        return Err(NoTerms {
                            field,
                            why: why.to_owned(),
                        });
                    }
                };
                let terms = CalendarQuota::new(quota.limit.get(), quota.every).map(Terms::Calendar);
                (field, terms.map_err(|error| error.to_string()), quota.mode)
            }
        };
        let terms = own.and_then(|own| match lease {
            Some(lease) => lease.lease(own),
            None => Ok(own),
        });
        match terms {
            Ok(terms) => Ok(Some(OwnTerms {
                terms,
                mode,
                setting: self.setting,
            })),
            Err(why) => Err(NoTerms { field, why }),
        }
    }
}

impl LeaseRule {
    /// Returns the terms of a limit that is counted in the store.
    ///
    /// # Errors
    /// Why the store cannot count it.
    pub fn lease(self, own: Terms) -> Result<Terms, String> {
        let central = match own {
            Terms::Bucket(quota) => CentralTerms::Bucket(quota),
            Terms::Window(quota) => CentralTerms::Window(quota),
            Terms::Calendar(quota) => CentralTerms::Calendar(quota),
            Terms::InFlight(cap) => CentralTerms::Slots(cap),
            Terms::LeasedBucket(_) | Terms::LeasedWindow(_) | Terms::LeasedCalendar(_) | Terms::LeasedSlots(_) => {
                return Ok(own);
            }
        };
        if !central.are_exact() {
            return Err("it cannot be counted in the store: it is too short or fills too slowly".to_owned());
        }
        if let Terms::Window(quota) = own
            && self.time * 4 > quota.window()
        {
            return Err("its window is shorter than four times `limits_store.lease_time`".to_owned());
        }
        Ok(self.leased(own))
    }

    /// Returns the leased terms of a limit that the store can count.
    pub fn leased(self, own: Terms) -> Terms {
        let lease = if self.is_exact {
            LeaseTerms::exact(own.most(), self.time)
        } else {
            LeaseTerms::new(own.most(), self.share, self.time)
        };
        let lease = lease.expect("share and time are in the range that the config allows");
        let when_down = self.when_down;
        match own {
            Terms::Bucket(own) => Terms::LeasedBucket(LeasedTerms { own, lease, when_down }),
            Terms::Window(own) => Terms::LeasedWindow(LeasedTerms { own, lease, when_down }),
            Terms::Calendar(own) => Terms::LeasedCalendar(LeasedTerms { own, lease, when_down }),
            Terms::InFlight(own) => Terms::LeasedSlots(LeasedTerms { own, lease, when_down }),
            other => other,
        }
    }
}
