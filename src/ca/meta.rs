//! What an authority says about itself.

/// The metadata of a directory (RFC 8555 §9.7.6); all empty for an authority of our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Where its terms of service are.
    pub terms_of_service: Option<String>,
    /// Its website.
    pub website: Option<String>,
    /// The names by which CAA records mean it; as configured where the configuration says.
    pub caa_identities: Vec<String>,
    /// Whether accounts must be bound to a customer.
    pub external_account_required: bool,
    /// The profiles it offers, by name.
    pub profiles: Vec<Profile>,
}

/// A kind of certificate that an authority offers (draft-ietf-acme-profiles).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// What is ordered.
    pub name: String,
    /// The authority's words for it, often a URL.
    pub description: String,
}

impl Meta {
    /// Whether such a profile is offered.
    #[must_use]
    pub fn offers(&self, profile: &str) -> bool {
        self.profiles.iter().any(|offered| offered.name == profile)
    }
}
