//! Breaks a list into lines that fit a terminal.

/// Width of a line, in characters, without the indentation of the section.
const WIDTH: usize = 96;

/// Returns `start` with the items, separated by commas. Further lines are indented by four.
pub(super) fn lines<T: AsRef<str>>(start: &str, items: impl IntoIterator<Item = T>) -> Vec<String> {
    let (mut lines, mut line, mut is_first) = (Vec::new(), start.to_owned(), true);
    for item in items {
        let item = item.as_ref();
        if !is_first {
            line.push(',');
        }
        if line.chars().count() + 1 + item.chars().count() + 1 > WIDTH {
            lines.push(std::mem::replace(&mut line, "   ".to_owned()));
        }
        line.push(' ');
        line.push_str(item);
        is_first = false;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_before_it_is_too_long() {
        assert_eq!(lines("a:", ["x", "y"]), ["a: x, y"]);
        assert_eq!(lines("a:", [""; 0]), ["a:"]);
        let words = vec!["application/json"; 12];
        let wrapped = lines("a:", &words);
        assert!(
            wrapped.len() == 3 && wrapped.iter().all(|line| line.len() <= WIDTH),
            "{wrapped:#?}"
        );
        assert!(wrapped[0].ends_with(',') && wrapped[1].starts_with("    application/json,"));
        assert_eq!(wrapped.concat().matches("application/json").count(), 12);
    }
}
