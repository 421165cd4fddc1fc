//! The history on disk: killed, damaged and without room.

mod crash;
mod damage;
mod full_disk;
mod worker;
