//! The stored form of a password: a bcrypt hash, and a hash that no password fits.
//!
//! Invariant: a hash of cost `n` takes 2 to the power of `n` rounds to compare, whether or not the password fits.

/// bcrypt cost of new hashes: 2 to the power of this many rounds, about a tenth of a second.
pub(super) const COST: u32 = 11;

/// Returns the hash of a password for the user file. bcrypt uses the first 72 bytes of the password.
pub fn hash(password: &str) -> String {
    bcrypt::hash(password, COST).expect("the cost is within bcrypt's bounds")
}

/// Returns the cost of a hash, if it is a bcrypt hash.
pub fn cost(hash: &str) -> Option<u32> {
    Some(hash.parse::<bcrypt::HashParts>().ok()?.get_cost())
}

/// Returns a hash of valid form that no password fits, because the part after the salt is not a hash of that salt.
pub(super) fn decoy(cost: u32) -> String {
    format!("$2b${cost:02}${}", ".".repeat(53))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_what_htpasswd_writes() {
        let made = hash("lovelace");
        assert!(bcrypt::verify("lovelace", &made).unwrap());
        assert_eq!(cost(&made), Some(COST));
        assert_eq!(
            cost("$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC"),
            Some(5)
        );
        assert_eq!(cost("lovelace"), None);
        assert_eq!(cost(&decoy(12)), Some(12));
        assert!(!bcrypt::verify("", &decoy(4)).unwrap());
    }
}
