//! A test's corner: its database is migrated and its own, and nothing of it is left afterwards.

use postgres::{Client, NoTls};
use xtask::testing::{Isolated, Servers};

fn databases(like: &str) -> i64 {
    let url = &Servers::shared().expect("the servers").addresses.postgres_url;
    let mut client = Client::connect(url, NoTls).expect("a connection");
    let count = "SELECT count(*) FROM pg_database WHERE datname LIKE $1";
    client.query_one(count, &[&like]).expect("a count").get(0)
}

#[test]
fn two_tests_see_nothing_of_each_other() {
    let one = Isolated::new("corner one").expect("a corner");
    let other = Isolated::new("corner one").expect("a corner");
    assert_ne!(one.stream_prefix(), other.stream_prefix());
    assert!(one.stream_prefix().starts_with("corner_one_"));

    let mut client = Client::connect(&one.postgres_url(), NoTls).expect("a connection");
    client.batch_execute("CREATE TABLE only_here ()").expect("a table");
    let mut client = Client::connect(&other.postgres_url(), NoTls).expect("a connection");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename ";
    let count = |client: &mut Client, which: &str| -> i64 {
        client.query_one(&format!("{tables}{which}"), &[]).expect("a count").get(0)
    };
    assert_eq!(count(&mut client, "= 'only_here'"), 0);
    assert!(count(&mut client, "<> 'only_here'") > 0, "the migrations are applied");

    let name = one.postgres_url().rsplit('/').next().expect("a name").to_owned();
    let dir = one.dir().to_owned();
    assert_eq!(databases(&name), 1);
    drop(one);
    assert_eq!(databases(&name), 0);
    assert!(!dir.exists());
}

#[test]
fn the_streams_of_a_corner_go_with_it() {
    let corner = Isolated::without_database("streams").expect("a corner");
    corner.run("streams", &["apply"]).expect("the streams");
    corner.run("streams", &["check"]).expect("no drift");
    drop(corner);
}

/// The blocking client inside must not meet the runtime of the test.
#[test]
fn a_corner_can_be_made_on_any_thread() {
    let made =
        std::thread::spawn(|| Isolated::with_empty_database("empty").map(|corner| corner.postgres_url()));
    assert!(made.join().expect("no panic").expect("a corner").contains("/mt_empty_"));
}
