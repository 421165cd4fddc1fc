//! A client of pm2's daemons that cannot hurt them: the process list, what the daemon tells on its bus and in its log, and the
//! files of its home.
//!
//! pm2 has no stable interface but its command line, which costs a hundred times what its socket costs, and a malformed message
//! on that socket ends the daemon and every app. So what is sent here is fixed, what comes back is bounded, and each file
//! and socket of a home is checked before it is used: the home's owner may be hostile.
//!
//! | part          | what it is for                                        | pure |
//! |---------------|-------------------------------------------------------|------|
//! | `amp`         | the framing of pm2's sockets                          | yes  |
//! | `list`        | the process list, by an allow-list                    | yes  |
//! | `budget`      | how much of it is kept                                | yes  |
//! | `banner`      | the list in what the pm2 command prints               | yes  |
//! | `daemon_log`  | lines of pm2's log and of an app's error log          | yes  |
//! | `home_file`   | the one door to files of a home                       | no   |
//! | `socket`      | the client of a daemon                                | no   |
//! | `look`        | a look just before something is asked of a process    | no   |
//! | `bus`         | what a daemon tells on its public socket              | no   |
//! | `command`     | the pm2 command, where it is configured               | no   |
//! | `reload_lock` | pm2's reload lock, honoured and taken                 | the text form |

pub mod amp;
pub mod banner;
pub mod budget;
pub mod bus;
pub mod command;
pub mod daemon_log;
pub mod home_file;
pub mod list;
pub mod look;
pub mod reload_lock;
pub mod socket;
