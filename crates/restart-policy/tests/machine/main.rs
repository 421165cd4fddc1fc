//! What is restarted and why not, in a world without clocks: situations one by one, and happenings at random.

mod policy_support;
mod random;
mod scenarios;
