//! Certification authorities behind one trait; persists nothing: takes opened material, returns new.
