//! Reads the page that Prometheus scrapes.

/// Metrics of one scrape.
#[derive(Clone, Debug)]
pub struct Page(String);

impl Page {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// Returns the sum of the samples of a metric that have all these labels: 0 if nothing has been counted yet, `None`
    /// if the page does not contain the metric, or no gauge with these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let samples = self.0.lines().filter(|line| !line.starts_with('#'));
        let matching = samples.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (family, written) = series.split_once('{').unwrap_or((series, ""));
            let has = |(label, value): &(&str, &str)| {
                let pair = format!("{label}=\"{value}\"");
                let mut pairs = written.trim_end_matches('}').split(',');
                pairs.any(|candidate| candidate == pair)
            };
            (family == name && labels.iter().all(has)).then(|| value.parse::<f64>().ok())?
        });
        let is_counter = || self.0.contains(&format!("\n# TYPE {name} counter\n"));
        let none = || is_counter().then_some(0.0);
        matching
            .fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
            .or_else(none)
    }
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let page = Page::new(
            "# HELP a_total A\n# TYPE a_total counter\na_total{route=\"x\",code=\"2xx\"} 3\n\
             a_total{route=\"y\",code=\"2xx\"} 4\na_total_more 9\nb 1.5\n"
                .into(),
        );
        assert_eq!(page.sum("a_total", &[("route", "x")]), Some(3.0));
        assert_eq!(page.sum("a_total", &[("code", "2xx")]), Some(7.0));
        assert_eq!(page.sum("a_total", &[("route", "z")]), Some(0.0));
        assert_eq!(page.sum("a_total_more", &[("route", "z")]), None);
        assert_eq!(page.sum("b", &[("route", "z")]), None);
        assert_eq!(page.sum("c_total", &[]), None);
        assert_eq!(page.sum("b", &[]), Some(1.5));
    }
}
