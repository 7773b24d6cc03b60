//! Draws the order in which routes are tried, with the methods that a more specific route refuses.

use std::fmt::Write;

use crate::routing::{Place, Refused};

/// Appends a line for each place to `page`.
pub(super) fn draw(page: &mut String, places: &[Place]) {
    let rows: Vec<[String; 4]> = places.iter().map(columns).collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let (methods, paths, routes) = (width(0), width(1), width(2));
    for (row, place) in rows.iter().zip(places) {
        let [method, path, route, conditions] = row;
        let line = format!("  {method:methods$}  {path:paths$}  {route:routes$}  {conditions}");
        page.push_str(line.trim_end());
        page.push('\n');
        for Refused { methods, route } in &place.refused {
            let methods = if methods.is_empty() { "other methods" } else { methods };
            let _ = writeln!(page, "      405 for {methods}, which {route} takes elsewhere");
        }
    }
}

fn columns(place: &Place) -> [String; 4] {
    let host = if place.host == "*" { "" } else { &place.host };
    let methods = if place.methods.is_empty() {
        "any"
    } else {
        &place.methods
    };
    [
        methods.replace(", ", ","),
        format!("{host}{}", place.path),
        place.route.to_string(),
        place.conditions.join(", "),
    ]
}
