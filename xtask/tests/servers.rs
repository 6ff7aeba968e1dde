//! The servers as tests use them: ready when started, gone when dropped, the same after a restart.

use postgres::{Client, NoTls};
use xtask::process::{children_of, parent_of};
use xtask::servers::{Options, Server};
use xtask::testing::{Stack, fresh_dir};

fn alive(pid: u32) -> bool {
    parent_of(pid).is_some()
}

#[test]
fn postgres_keeps_its_rows_over_a_crash_and_leaves_no_backend() {
    let dir = fresh_dir("pg").expect("a folder");
    let mut server = Server::postgres(&dir, &Options::default()).expect("Postgres");
    let url = server.url();
    let mut client = Client::connect(&url, NoTls).expect("a connection");
    client.batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (7)").expect("a row");

    let port = server.port();
    server.kill9().expect("a crash");
    assert_eq!(server.pid(), None);
    server.restart().expect("a restart");
    assert_eq!(server.port(), port);
    let mut client = Client::connect(&url, NoTls).expect("a connection");
    assert_eq!(client.query_one("SELECT n FROM t", &[]).expect("the row").get::<_, i32>(0), 7);

    let postmaster = server.pid().expect("a pid");
    let backends = children_of(postmaster);
    assert!(!backends.is_empty());
    drop(server);
    assert!(!alive(postmaster));
    for pid in backends {
        assert!(!alive(pid), "backend {pid}");
    }
    std::fs::remove_dir_all(dir).expect("the folder");
}

#[test]
fn a_taken_port_is_given_up_and_said() {
    let dir = fresh_dir("port").expect("a folder");
    let first = Server::redis(&dir.join("a"), &Options::throwaway()).expect("Redis");
    let options = Options { port: Some(first.port()), ..Options::throwaway() };
    let second = Server::redis(&dir.join("b"), &options).expect("Redis");
    assert_ne!(first.port(), second.port());
    assert_eq!((first.moved_from(), second.moved_from()), (None, Some(first.port())));
    std::fs::remove_dir_all(dir).expect("the folder");
}

#[test]
fn a_stack_stops_goes_on_and_restarts() {
    let mut stack = Stack::private("stack").expect("the servers");
    let before = stack.addresses();
    for server in [&mut stack.nats, &mut stack.redis, &mut stack.postgres] {
        server.sigstop().expect("a stop");
        server.sigcont().expect("a cont");
        let pid = server.pid().expect("a pid");
        server.restart().expect("a restart");
        assert!(server.is_running().expect("a look"));
        assert_ne!(server.pid(), Some(pid));
        assert!(!alive(pid));
    }
    assert_eq!(stack.addresses().nats_url, before.nats_url);
}

#[test]
fn a_server_that_can_not_start_says_where_to_look() {
    let dir = fresh_dir("broken").expect("a folder");
    let options =
        Options { extra: vec!["--no-such-setting".to_owned(), "1".to_owned()], ..Options::throwaway() };
    let error = Server::redis(&dir, &options).expect_err("a wrong setting");
    assert!(error.to_string().contains("redis-server.log"), "{error:#}");
    std::fs::remove_dir_all(dir).expect("the folder");
}
