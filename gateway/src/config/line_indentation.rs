//! Finds a line whose indentation fits no line above it, where YAML has found an error.

/// Returns what is wrong with the indentation of the line at `start`, where YAML has found an error.
pub(super) fn of_line(text: &str, start: usize) -> Option<String> {
    let begin = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[begin..].lines().next()?;
    let indent = depth(line)?;
    if start - begin > indent {
        return None;
    }
    // Indentations of the open collections above: each such line is indented less than all lines below it.
    let (mut levels, mut least) = (Vec::new(), usize::MAX);
    for above in text[..begin].lines().rev() {
        let Some(depth) = depth(above).filter(|depth| *depth < least) else {
            continue;
        };
        let content = above.trim_start();
        if let Some(item) = content.strip_prefix("- ") {
            levels.push((depth + 2 + (item.len() - item.trim_start().len()), ""));
        }
        levels.push((depth, content));
        least = depth;
    }
    let spaces = |depth: usize| format!("{depth} space{}", if depth == 1 { "" } else { "s" });
    match levels.iter().find(|(depth, _)| *depth == indent) {
        Some((_, item)) if item.starts_with('-') && !line.trim_start().starts_with('-') => {
            let list = levels.iter().find(|(depth, _)| *depth < indent)?.0;
            Some(format!(
                "it is in line with the list above it: indent it by {} if it does not belong there, or begin it with `- `",
                spaces(list)
            ))
        }
        Some(_) => None,
        None => {
            let lower = levels
                .iter()
                .map(|(depth, _)| *depth)
                .filter(|depth| *depth < indent)
                .max();
            let higher = levels
                .iter()
                .map(|(depth, _)| *depth)
                .filter(|depth| *depth > indent)
                .min();
            let wanted: Vec<_> = lower.into_iter().chain(higher).map(spaces).collect();
            (!wanted.is_empty()).then(|| {
                format!(
                    "it is indented by {}, what is above it by {}: the indentation says what belongs together",
                    spaces(indent),
                    wanted.join(" or ")
                )
            })
        }
    }
}

/// Returns the number of leading spaces; `None` for an empty line and for a comment.
fn depth(line: &str) -> Option<usize> {
    let content = line.trim_start_matches(' ');
    (!content.trim().is_empty() && !content.starts_with('#')).then(|| line.len() - content.len())
}
