//! Lists of many pages, and commands that take long: told so, cancelled, bounded in number.

use super::*;

fn can(command: &Node) -> (String, Vec<String>) {
    let actions = command.child("actions", xmpp::ns::COMMANDS).unwrap();
    let names = actions.children().map(|e| e.name().to_owned()).collect();
    (actions.attr("execute").unwrap().to_owned(), names)
}

#[test]
fn lists_are_read_page_by_page_both_ways() {
    let mut c = Client::new(&[Right::AdminRead]);
    crowd(&c, 60);
    let node = format!("node='{ADMIN}#get-registered-users-list'");
    let id = c.begin("get-registered-users-list");
    let with = |action: &str| format!("{node} sessionid='{id}' action='{action}'");
    let jids = |page: &Node| values(page, "registereduserjids");
    let first = c.ok(&with("complete"), &submit(&[("max_items", "25")]));
    assert_eq!(first.attr("status"), Some("executing"));
    assert_eq!(
        can(&first),
        ("next".into(), vec!["next".into(), "complete".into()])
    );
    assert_eq!(
        (jids(&first).len(), &*jids(&first)[0]),
        (25, "u00@a.example")
    );
    assert_eq!(c.wrong(&with("prev"), ""), "bad-request bad-action");
    let second = c.ok(&with("next"), "");
    assert_eq!(
        can(&second).1,
        ["prev".to_owned(), "next".into(), "complete".into()]
    );
    assert_eq!(
        (jids(&second).len(), &*jids(&second)[0]),
        (25, "u25@a.example")
    );
    // The default goes on, too; a list that grew meanwhile is read on where it was.
    let third = c.ok(&with("execute"), "");
    assert_eq!(
        can(&third),
        ("complete".into(), vec!["prev".into(), "complete".into()])
    );
    assert_eq!(
        (jids(&third).len(), &*jids(&third)[9]),
        (10, "u59@a.example")
    );
    assert_eq!(c.wrong(&with("next"), ""), "bad-request bad-action");
    for beginning in ["u25@a.example", "u00@a.example"] {
        assert_eq!(jids(&c.ok(&with("prev"), ""))[0], beginning);
    }
    assert_eq!(jids(&c.ok(&with("next"), ""))[0], "u25@a.example");
    // A page that fails leaves the one before.
    let rights = std::mem::take(&mut c.site.rights);
    assert_eq!(c.wrong(&with("next"), ""), "forbidden -");
    c.site.rights = rights;
    assert_eq!(jids(&c.ok(&with("next"), ""))[0], "u50@a.example");
    let done = c.ok(&with("complete"), "");
    assert_eq!(done.attr("status"), Some("completed"));
    assert_eq!(c.wrong(&with("prev"), ""), "bad-request bad-sessionid");
    // What fits is there at once.
    let all = c.run("get-registered-users-list", &[("max_items", "75")]);
    assert_eq!(jids(&all.unwrap()).len(), 60);
    let id = c.begin("get-registered-users-list");
    let odd = format!("{node} sessionid='{id}'");
    let refused = c.wrong(&odd, &submit(&[("max_items", "1000000")]));
    assert_eq!(refused, "bad-request bad-payload");
}

#[test]
fn a_long_command_says_so_and_is_done_once() {
    let mut c = Client::new(&[Right::Admin]);
    crowd(&c, 3);
    let node = format!("node='{ADMIN}#delete-user'");
    let id = c.begin("delete-user");
    let with = |action: &str| format!("{node} sessionid='{id}' action='{action}'");
    c.leaves_work = true;
    let three = [("accountjids", "u00@a.example u01@a.example u02@a.example")];
    let nothing_yet = |outcome| {
        matches!(
            outcome,
            Outcome::Error(StanzaError::RemoteServerTimeout, ..)
        )
    };
    assert!(nothing_yet(c.send(
        "desk",
        &with("complete"),
        &submit(&three)
    )));
    assert_eq!(c.commands.poll_timeout(), Some(c.now + PATIENCE));
    c.commands
        .handle_timeout(c.now + PATIENCE - Duration::from_millis(1));
    assert_eq!(c.commands.poll_answers(), []);
    c.now += PATIENCE;
    c.commands.handle_timeout(c.now);
    let said = |c: &mut Client| match c.commands.poll_answers().pop().unwrap().1 {
        Outcome::Reply(command) => command,
        other => panic!("{other:?}"),
    };
    let waits = said(&mut c);
    assert_eq!(waits.attr("status"), Some("executing"));
    assert_eq!(can(&waits), ("next".into(), vec!["next".into()]));
    assert_eq!(note(&waits), ("info".into(), "still running".into()));
    assert_eq!(c.commands.poll_timeout(), None);
    // The form again would do it twice.
    assert_eq!(
        c.wrong(&with("complete"), &submit(&three)),
        "bad-request bad-action"
    );
    // Who asks waits again, until it is there. Of two, one waits.
    assert!(nothing_yet(c.send("desk", &with("next"), "")));
    let earlier = c.ok(&with("next"), "");
    assert_eq!(note(&earlier).1, "still running");
    c.work();
    let done = said(&mut c);
    assert_eq!(done.attr("status"), Some("completed"));
    assert!(note(&done).1.contains("u02@a.example removed"), "{done:?}");
    assert_eq!(c.wrong(&with("next"), ""), "bad-request bad-sessionid");
    let begun = |c: &Client| {
        let audited = c.site.audited.lock().unwrap();
        audited.iter().filter(|l| l["result"] == "begun").count()
    };
    assert_eq!(begun(&c), 3);

    // Done while nobody asks: it is kept, an error as well, and then the form is there for another try.
    let id = c.begin("delete-user");
    let with = |action: &str| format!("{node} sessionid='{id}' action='{action}'");
    c.send("desk", &with("complete"), &submit(&three));
    c.now += PATIENCE;
    c.commands.handle_timeout(c.now);
    said(&mut c);
    c.work();
    assert_eq!(c.commands.poll_answers(), []);
    assert_eq!(c.wrong(&with("prev"), ""), "bad-request bad-action");
    assert_eq!(c.wrong(&with("next"), ""), "item-not-found -");
    assert_eq!(c.ok(&with("cancel"), "").attr("status"), Some("canceled"));
    assert_eq!(begun(&c), 6);
}

#[test]
fn a_command_that_is_cancelled_leaves_what_it_has_not_begun() {
    let mut c = Client::new(&[Right::Admin]);
    crowd(&c, 2);
    c.leaves_work = true;
    let id = c.begin("delete-user");
    let with = format!("node='{ADMIN}#delete-user' sessionid='{id}'");
    let two = [("accountjids", "u00@a.example u01@a.example")];
    c.send("desk", &with, &submit(&two));
    c.now += PATIENCE;
    c.commands.handle_timeout(c.now);
    c.commands.poll_answers();
    let gone = c.ok(&format!("{with} action='cancel'"), "");
    assert_eq!(gone.attr("status"), Some("canceled"));
    assert_eq!(note(&gone).0, "warn");
    c.work();
    assert_eq!(c.commands.poll_answers(), []);
    assert_eq!(c.site.all("user list").0.len(), 2, "nothing had been begun");
    assert_eq!(
        c.wrong(&format!("{with} action='next'"), ""),
        "bad-request bad-sessionid"
    );
}

#[test]
fn more_commands_than_may_run_are_refused() {
    let mut c = Client::new(&[Right::Admin]);
    c.leaves_work = true;
    let number = format!("node='{ADMIN}#get-online-users-num'");
    // Of one account no more than it may have open: none of those that run goes for another.
    for _ in 0..20 {
        c.send("desk", &number, "");
    }
    assert_eq!(c.wrong(&number, ""), "resource-constraint -");
    c.now += PATIENCE;
    c.commands.handle_timeout(c.now);
    assert_eq!(c.commands.poll_answers().len(), 20);
    c.work();
    c.leaves_work = false;
    c.ok(&number, "");
}
