//! Questions to the ledger: which time, whose use, and in which periods.

use std::sync::Arc;

use super::counts::Counts;
use super::ledger::Ledger;
use super::names::Names;

/// Length of the periods of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    Minute,
    Hour,
    Day,
}

impl By {
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Length in minutes.
    pub const fn minutes(self) -> u64 {
        match self {
            Self::Minute => 1,
            Self::Hour => 60,
            Self::Day => 24 * 60,
        }
    }

    /// Returns the number of the period that contains a minute.
    pub const fn period(self, minute: u64) -> u64 {
        minute / self.minutes()
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == word)
    }
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub by: By,
    /// First minute, since 1970. The period that contains it is the first of the answer.
    pub from: u64,
    /// Minute after the last one.
    pub to: u64,
    pub tenant: Option<String>,
    pub route: Option<String>,
    pub key: Option<String>,
}

/// Use of one series in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// First minute of the period, since 1970.
    pub minute: u64,
    pub names: Arc<Names>,
    pub counts: Counts,
}

impl Ledger {
    /// Returns the rows that the question asks for, by time, tenant, route and key.
    pub fn rows(&self, query: &Query) -> Vec<Row> {
        let (first, end) = (query.by.period(query.from), query.to.div_ceil(query.by.minutes()));
        let mut rows = Vec::new();
        for (period, sums) in self.sums(query.by).range(first..end.max(first)) {
            let before = rows.len();
            let asked = sums.iter().filter(|(names, _)| query.asks_for(names));
            rows.extend(asked.map(|(names, counts)| Row {
                minute: period * query.by.minutes(),
                names: Arc::clone(names),
                counts: counts.clone(),
            }));
            rows[before..].sort_by(|one, other| one.names.cmp(&other.names));
        }
        rows
    }

    /// Returns the first minute of the oldest period that is kept; `None` if none is.
    pub fn oldest(&self, by: By) -> Option<u64> {
        self.sums(by).keys().next().map(|period| period * by.minutes())
    }
}

impl Query {
    fn asks_for(&self, names: &Names) -> bool {
        let fits = |wanted: &Option<String>, name: &Option<Arc<str>>| {
            wanted.as_deref().is_none_or(|wanted| name.as_deref() == Some(wanted))
        };
        fits(&self.tenant, &names.tenant) && fits(&self.route, &names.route) && fits(&self.key, &names.key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::usage::ledger::Bounds;

    #[test]
    fn a_question_is_answered_by_time_and_name() {
        let bounds = Bounds {
            series: 10,
            records: 1000,
            waiting: None,
        };
        let mut ledger = Ledger::new("e".into(), bounds);
        for minute in [0, 59, 60, 61] {
            ledger.move_to(Duration::from_secs(minute * 60));
            for tenant in ["b", "a"] {
                let names = Names {
                    tenant: Some(tenant.into()),
                    route: Some("r".into()),
                    ..Names::default()
                };
                let counts = Counts {
                    requests: minute + 1,
                    ..Counts::default()
                };
                ledger.add(&names, counts);
            }
        }
        let ask = |by, from, to, tenant: Option<&str>| {
            let query = Query {
                by,
                from,
                to,
                tenant: tenant.map(str::to_owned),
                route: None,
                key: None,
            };
            let rows = ledger.rows(&query).into_iter();
            let shown = rows.map(|row| {
                format!(
                    "{}{}={}",
                    row.minute,
                    row.names.tenant.as_deref().unwrap_or("-"),
                    row.counts.requests
                )
            });
            shown.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ask(By::Minute, 59, 61, None), "59a=60 59b=60 60a=61 60b=61");
        assert_eq!(ask(By::Minute, 60, 60, None), "");
        assert_eq!(ask(By::Hour, 0, 61, Some("a")), "0a=61 60a=123");
        assert_eq!(ask(By::Hour, 30, 60, Some("a")), "0a=61");
        assert_eq!(ask(By::Day, 0, 1, Some("b")), "0b=184");
        assert_eq!(ask(By::Day, 0, 1, Some("c")), "");
        assert_eq!(ask(By::Minute, 100, 50, None), "");
    }
}
