//! Groups the owners that requests may name, for the caps on their accounts.

/// A group of owners with a common cap on its accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerClass {
    Addresses,
    /// Networks whose addresses share an account.
    Networks,
    /// Tenants that only the claims of tokens name.
    Tenants,
    Callers,
    /// Tenants whose callers share an account.
    CallersOfTenants,
    /// Owners of all kinds that a state file names.
    Restored,
}

impl OwnerClass {
    pub const ALL: [Self; 6] = [
        Self::Addresses,
        Self::Networks,
        Self::Tenants,
        Self::Callers,
        Self::CallersOfTenants,
        Self::Restored,
    ];

    /// Returns the room with this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|room| room.as_str() == word)
    }

    /// Word for the room in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::Networks => "networks",
            Self::Tenants => "tenants",
            Self::Callers => "callers",
            Self::CallersOfTenants => "callers_of_tenants",
            Self::Restored => "restored",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_found_by_their_number() {
        for (number, room) in OwnerClass::ALL.into_iter().enumerate() {
            assert_eq!(room as usize, number, "{}", room.as_str());
        }
    }
}
