//! Explains which route takes a request, and why no other does.

use std::sync::Arc;

use super::Scene;
use super::step::Step;
use crate::plan::Route;
use crate::routing;
use crate::routing::rivals::{Miss, Rival, Standing};
use crate::template::Query;

impl Scene<'_> {
    /// Returns the route, or that there is none, with the other routes.
    pub(super) fn route(&self, found: Option<&Arc<Route>>) -> Vec<Step> {
        let rivals = self.rivals();
        let taken = rivals.iter().find(|rival| rival.standing == Standing::Taken);
        let mut step = match found {
            Some(route) => {
                let text = match taken.filter(|rival| rival.route == route.name) {
                    Some(rival) => format!("{}, as {}", route.name, place(rival)),
                    None => route.name.to_string(),
                };
                Step::plain("route", text)
                    .at(self.plan, format!("routes.{}", route.name))
                    .fact("route", &*route.name)
            }
            None => Step::plain("route", "no route takes the request"),
        };
        let winner = taken.map(|rival| &*rival.route);
        let others = rivals.iter().filter(|rival| rival.standing != Standing::Taken);
        step = step.with(others.map(|rival| self.rival(rival, winner)));
        let policy = self.asked.path_policy.zip(found);
        let normalised = policy.map(|(_, route)| {
            let text = format!("the path was ambiguous, and is read as {}", self.asked.uri.path());
            Step::plain("path", text).by(self.plan, route.ids.path_policy)
        });
        [step].into_iter().chain(normalised).collect()
    }

    /// Compares the routes with the request; none if its address cannot be read.
    fn rivals(&self) -> Vec<Rival> {
        let asked = self.asked;
        let keeps = asked.path_policy.unwrap_or_default().keeps();
        let Ok(target) = routing::Target::read(&asked.method, asked.version, &asked.uri, &asked.headers, keeps) else {
            return Vec::new();
        };
        let query = Query::new(asked.uri.query());
        self.plan
            .routes
            .rivals(target.host, &target.path, &asked.method, &asked.headers, &query)
    }

    fn rival(&self, rival: &Rival, winner: Option<&str>) -> Step {
        let winner = winner.unwrap_or("the other");
        let why = match &rival.standing {
            Standing::Taken => "takes the request".to_owned(),
            Standing::Fits(rule) => format!("fits too, but of {winner} {}", rule.of()),
            Standing::Behind => "would take it, but a more specific path refuses the method".to_owned(),
            Standing::Misses(Miss::Host) => "is for another host".to_owned(),
            Standing::Misses(Miss::Path(0)) => "is for another path".to_owned(),
            Standing::Misses(Miss::Path(segments)) => {
                format!("fits up to segment {segments}, and then is for another path")
            }
            Standing::Misses(Miss::Condition(condition)) => format!("needs {condition}"),
            Standing::Misses(Miss::Method(methods)) if methods.is_empty() => "does not take the method".to_owned(),
            Standing::Misses(Miss::Method(methods)) => format!("takes {methods} alone"),
        };
        let word = match rival.standing {
            Standing::Taken => "taken",
            Standing::Fits(_) => "fits",
            Standing::Behind => "behind",
            Standing::Misses(_) => "misses",
        };
        Step::plain("other_route", format!("{} {}: {why}", rival.route, place(rival)))
            .at(self.plan, format!("routes.{}", rival.route))
            .fact("route", &*rival.route)
            .fact("standing", word)
    }
}

/// Returns host and path of a route as in the config.
fn place(rival: &Rival) -> String {
    let host = if rival.host == "*" { "" } else { &rival.host };
    format!("{host}{}", rival.path)
}
