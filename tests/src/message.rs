//! HTTP/1.1 messages in raw bytes, read by rules of our own: a test that trusted hyper's reading could not doubt it.

/// Lines of a head: the first one, and the fields as they were sent.
#[derive(Debug, Clone, Default)]
pub struct Head {
    pub first: String,
    pub fields: Vec<(String, String)>,
}

/// A message as far as it has come.
#[derive(Debug, Default)]
pub struct Message {
    pub head: Option<Head>,
    pub body: Vec<u8>,
    /// Where it ends, if it has come to that.
    pub end: Option<usize>,
    /// What a strict reader objects to.
    pub defects: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Nothing,
    Length(usize),
    Chunked,
    UntilClose,
}

impl Head {
    /// For bytes that are none.
    pub fn broken(bytes: &[u8]) -> Self {
        Self {
            first: latin(bytes),
            fields: Vec::new(),
        }
    }

    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// Of an answer; 0 if it has none.
    pub fn status(&self) -> u16 {
        self.target().parse().unwrap_or_default()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// A request at the start of `bytes`.
pub fn request(bytes: &[u8]) -> Message {
    let Some((head, start, mut defects)) = head(bytes) else {
        return Message::default();
    };
    if head.all("host").len() != 1 {
        defects.push("not one Host".to_owned());
    }
    if head.first.split(' ').count() != 3 || !head.first.ends_with(" HTTP/1.1") {
        defects.push(format!("request line {:?}", head.first));
    }
    let framing = framing(&head, &mut defects).unwrap_or(Framing::Nothing);
    read(head, start, framing, false, bytes, defects)
}

/// An answer at the start of `bytes`; `closed` if nothing follows them.
pub fn answer(bytes: &[u8], to_head: bool, closed: bool) -> Message {
    let Some((head, start, mut defects)) = head(bytes) else {
        return Message::default();
    };
    if !head.first.starts_with("HTTP/1.1 ") || !(100..600).contains(&head.status()) {
        defects.push(format!("status line {:?}", head.first));
    }
    let framing = framing(&head, &mut defects);
    let framing = match head.status() {
        100..=199 | 204 | 304 => Framing::Nothing,
        _ if to_head => Framing::Nothing,
        _ => framing.unwrap_or(Framing::UntilClose),
    };
    read(head, start, framing, closed, bytes, defects)
}

fn head(bytes: &[u8]) -> Option<(Head, usize, Vec<String>)> {
    let end = find(bytes, b"\r\n\r\n")?;
    let text = latin(&bytes[..end]);
    let mut lines = text.split("\r\n");
    let mut head = Head {
        first: lines.next().unwrap_or_default().to_owned(),
        fields: Vec::new(),
    };
    let mut defects = Vec::new();
    if text.replace("\r\n", "").contains(['\r', '\n', '\0']) {
        defects.push("a bare CR, LF or NUL".to_owned());
    }
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) {
            defects.push(format!("field line {line:?}"));
        }
        head.fields
            .push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
    Some((head, end + 4, defects))
}

fn framing(head: &Head, defects: &mut Vec<String>) -> Option<Framing> {
    let (lengths, codings) = (head.all("content-length"), head.all("transfer-encoding"));
    if lengths.len() + codings.len() > 1 {
        defects.push("framed twice".to_owned());
    }
    if let Some(coding) = codings.first() {
        if *coding != "chunked" {
            defects.push(format!("transfer coding {coding:?}"));
        }
        return Some(Framing::Chunked);
    }
    let length = lengths.first()?;
    if !length.chars().all(|c| c.is_ascii_digit()) {
        defects.push(format!("length {length:?}"));
    }
    Some(Framing::Length(length.parse().unwrap_or_default()))
}

fn read(head: Head, start: usize, framing: Framing, closed: bool, bytes: &[u8], mut defects: Vec<String>) -> Message {
    let rest = &bytes[start..];
    let (body, end) = match framing {
        Framing::Nothing => (Vec::new(), Some(0)),
        Framing::Length(length) => (
            rest[..length.min(rest.len())].to_vec(),
            (rest.len() >= length).then_some(length),
        ),
        Framing::UntilClose => (rest.to_vec(), closed.then_some(rest.len())),
        Framing::Chunked => chunks(rest, &mut defects),
    };
    Message {
        head: Some(head),
        body,
        end: end.map(|end| start + end),
        defects,
    }
}

/// The content of the chunks, and where they end.
fn chunks(bytes: &[u8], defects: &mut Vec<String>) -> (Vec<u8>, Option<usize>) {
    let mut body = Vec::new();
    let mut at = 0;
    while let Some(line) = find(&bytes[at..], b"\r\n") {
        let size = latin(&bytes[at..at + line]);
        let Ok(size) = usize::from_str_radix(size.trim_start_matches('+'), 16) else {
            defects.push(format!("chunk size {size:?}"));
            return (body, None);
        };
        at += line + 2;
        if size == 0 {
            loop {
                let Some(line) = find(&bytes[at..], b"\r\n") else {
                    return (body, None);
                };
                at += line + 2;
                if line == 0 {
                    return (body, Some(at));
                }
            }
        }
        let Some(chunk) = bytes.get(at..at + size) else {
            body.extend_from_slice(&bytes[at..]);
            return (body, None);
        };
        body.extend_from_slice(chunk);
        at += size;
        match bytes.get(at..at + 2) {
            None => return (body, None),
            Some(b"\r\n") => at += 2,
            Some(_) => {
                defects.push("a chunk without an end".to_owned());
                return (body, None);
            }
        }
    }
    (body, None)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn latin(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}
