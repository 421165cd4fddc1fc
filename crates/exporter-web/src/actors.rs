//! Which users of this machine may act: root, the user that this process runs as, and those who were named.

use std::collections::BTreeSet;

use super::peer::LocalUser;
use crate::accounts::{Entry, GROUPS, LONGEST_LIST, USERS, entries, read};

const ROOT: u32 = 0;

/// Who may act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actors {
    own: u32,
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
}

impl Actors {
    /// Root, the user that this process runs as, and these users and groups, by name or number.
    ///
    /// # Errors
    /// The list that does not have one of the names, and a sentence that says which.
    pub fn new(users: &[String], groups: &[String]) -> Result<Self, (&'static str, String)> {
        let own = rustix::process::geteuid().as_raw();
        let all = |names: &[String], list: &'static str, key: &'static str| {
            let text = read(list, LONGEST_LIST);
            let number = |name: &String| {
                let known = name.parse().ok().or_else(|| entries(&text).find(|entry| entry.name == name)?.number);
                known.ok_or_else(|| (list, format!("{key}: it does not have \"{name}\"; write the number instead")))
            };
            names.iter().map(number).collect::<Result<BTreeSet<u32>, _>>()
        };
        let users = all(users, USERS, "web.acting_users")?;
        Ok(Self { own, users, groups: all(groups, GROUPS, "web.acting_groups")? })
    }

    /// The user that this process runs as.
    pub fn own(&self) -> u32 {
        self.own
    }

    /// Whether anybody was named beside root and our own user.
    pub fn are_named(&self) -> bool {
        !(self.users.is_empty() && self.groups.is_empty())
    }

    /// Whether this user may act. Reads the lists of users and groups where groups were named: who has joined one since may.
    pub fn admit(&self, user: LocalUser) -> bool {
        let LocalUser { uid, gid } = user;
        if uid == ROOT || uid == self.own || self.users.contains(&uid) {
            return true;
        }
        if self.groups.is_empty() {
            return false;
        }
        let read = |list| read(list, LONGEST_LIST);
        gid.is_some_and(|gid| self.groups.contains(&gid)) || self.has_member(uid, &read(USERS), &read(GROUPS))
    }

    fn has_member(&self, uid: u32, users: &str, groups: &str) -> bool {
        let ours = |gid: Option<u32>| gid.is_some_and(|gid| self.groups.contains(&gid));
        entries(users).filter(|user| user.number == Some(uid)).any(|user| {
            let named = |group: Entry<'_>| group.members().any(|member| member == user.name);
            ours(user.group()) || entries(groups).any(|group| ours(group.number) && named(group))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_our_own_user_act_and_others_who_were_named() {
        let own = rustix::process::geteuid().as_raw();
        let user = |uid| LocalUser { uid, gid: None };
        let nobody_named = Actors::new(&[], &[]).unwrap();
        assert!(nobody_named.admit(user(0)) && nobody_named.admit(user(own)) && !nobody_named.admit(user(54_321)));
        assert!(Actors::new(&["54321".to_owned()], &[]).unwrap().admit(user(54_321)));
        assert_eq!(Actors::new(&["root".to_owned()], &["root".to_owned()]).unwrap().users, BTreeSet::from([0]));
        let (list, why) = Actors::new(&[], &["no such group".to_owned()]).unwrap_err();
        assert!(list == GROUPS && why.contains("web.acting_groups") && why.contains("no such group"), "{why}");
    }

    #[test]
    fn a_group_has_those_whose_first_one_it_is_and_those_it_lists() {
        let actors = Actors { own: 1, users: BTreeSet::new(), groups: BTreeSet::from([27]) };
        let users = "root:x:0:0::/:\nada:x:1000:1000::/:\nbob:x:1001:27::/:\neve:x:1002:1002::/:\nbroken\n";
        let groups = "sudo:x:27:ada,mallory\nother:x:28:eve\n";
        let may = |uid| actors.has_member(uid, users, groups);
        assert_eq!([1000, 1001, 1002, 1003].map(may), [true, true, false, false]);
        assert!(actors.admit(LocalUser { uid: 1003, gid: Some(27) }));
    }
}
