//! What fits, whose turn it is, and that the words say the same.

use super::*;

fn needs(gpus: u32, cpus: f64, memory: u64, labels: &[(&str, &str)]) -> HostNeeds {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    HostNeeds {
        gpus: (gpus > 0).then_some(gpus),
        cpus: (cpus > 0.0).then_some(cpus),
        memory: (memory > 0).then_some(memory),
        labels,
    }
}

fn host(worker: &str, gpus: u32, labels: &[(&str, &str)]) -> Host {
    Host {
        worker: worker.to_owned(),
        state: HostState::Open,
        labels: needs(0, 0.0, 0, labels).labels,
        offers: Capacity::new(gpus, 4, 16 << 30),
        used: Capacity::default(),
        slots: 2,
        busy: 0,
    }
}

#[test]
fn shares_of_cpus_add_up_exactly() {
    let tenth = Capacity::asked(&needs(0, 0.1, 0, &[]));
    let used = (0..10).fold(Capacity::default(), |used, _| used.and(&tenth));
    let one = Capacity::new(0, 1, 0);
    assert!(one.holds(&used));
    assert!(!one.without(&used).holds(&tenth));
    assert_eq!(Capacity::asked(&needs(0, 0.00001, 0, &[])).millicpus, 1, "asking for a little is not free");
}

#[test]
fn needs_that_differ_are_of_different_classes() {
    let all = [
        needs(0, 0.0, 0, &[]),
        needs(1, 0.0, 0, &[]),
        needs(2, 0.0, 0, &[]),
        needs(0, 1.0, 0, &[]),
        needs(0, 0.0, 1, &[]),
        needs(0, 0.0, 16 << 30, &[]),
        needs(0, 0.0, (16 << 30) + 1, &[]),
        needs(0, 0.0, 0, &[("gpus", "1")]),
        needs(0, 0.0, 0, &[("zone", "eu")]),
    ];
    let classes: std::collections::BTreeSet<String> = all.iter().map(|needs| class_of(Some(needs))).collect();
    assert_eq!(classes.len(), all.len());
    assert_eq!(class_of(None), class_of(Some(&HostNeeds { gpus: Some(0), ..HostNeeds::default() })));
}

#[test]
fn a_step_waits_for_a_reason_that_names_the_worker() {
    let gpu = host("gpu-1", 2, &[("zone", "eu")]);
    let full = Host { busy: 2, ..gpu.clone() };
    let half = Host { used: Capacity::new(2, 0, 0), busy: 1, ..gpu.clone() };
    let with = |state| Host { state, ..gpu.clone() };
    let two = || vec![gpu.clone(), host("cpu-1", 0, &[])];
    for (needs, hosts, expected) in [
        (needs(1, 0.0, 0, &[]), vec![], "no worker is connected"),
        (needs(8, 0.0, 0, &[]), two(), "no worker offers gpus=8 (the most is 2, on gpu-1)"),
        (needs(0, 5.5, 0, &[]), two(), "no worker offers cpus=5.5 (the most is 4, on cpu-1)"),
        (needs(0, 0.0, 1 << 40, &[]), two(), "no worker offers memory=1 TiB (the most is 16 GiB, on cpu-1)"),
        (needs(0, 0.0, 0, &[("zone", "us")]), two(), "no worker has the label zone=us"),
        (
            needs(1, 0.0, 0, &[("disk", "fast")]),
            vec![gpu.clone(), host("cpu-1", 0, &[("disk", "fast")])],
            "no one worker offers all of gpus=1, label disk=fast",
        ),
        (needs(1, 0.0, 0, &[]), vec![full.clone()], "gpu-1 offers it and is busy (2 of 2 slots)"),
        (needs(1, 0.0, 0, &[]), vec![half.clone()], "gpu-1 offers it and is busy (2 of 2 gpus)"),
        (
            needs(1, 0.0, 0, &[]),
            vec![full.clone(), half],
            "gpu-1 (2 of 2 slots) and 1 other offer it and are busy",
        ),
        (needs(1, 0.0, 0, &[]), vec![with(HostState::Draining)], "gpu-1 offers it and is draining"),
        (needs(1, 0.0, 0, &[]), vec![with(HostState::Silent)], "gpu-1 offers it and is not connected"),
        (
            needs(1, 0.0, 0, &[]),
            vec![with(HostState::Open)],
            "gpu-1 has room; workflows take turns, and a larger step that has waited long goes first",
        ),
    ] {
        assert_eq!(why_waits(&needs, &hosts), format!("waiting: {expected}"));
    }
    assert_eq!(why_not(&needs(3, 0.0, 0, &[]), &gpu).unwrap(), "it has 2 of gpus=3");
    assert_eq!(why_not(&needs(0, 0.0, 0, &[("zone", "us")]), &gpu).unwrap(), "its label zone is eu, not us");
    assert_eq!(why_not(&needs(1, 0.0, 0, &[]), &full).unwrap(), "it is busy (2 of 2 slots)");
    assert_eq!(why_not(&needs(1, 0.0, 0, &[]), &gpu), None);
}

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_millis(minutes * 60_000)
}

fn claimant(priority: u32, ready: i64, served: Option<i64>) -> Claimant {
    Claimant { priority, ready_at: at(ready), served_at: served.map(at), given: 0 }
}

#[test]
fn the_urgent_goes_first_and_equals_take_turns() {
    let first = |one: Claimant, other: Claimant, now: i64| one.turn(&other, at(now)) == Ordering::Less;
    assert!(first(claimant(60, 5, None), claimant(50, 5, None), 5));
    // A thousand steps since long ago, but served a moment ago: one that has just come goes first.
    assert!(first(claimant(50, 100, None), claimant(50, 0, Some(100)), 100));
    assert!(first(claimant(50, 0, Some(3)), claimant(50, 0, Some(4)), 4));
    assert!(first(claimant(50, 1, None), claimant(50, 2, None), 2));
}

#[test]
fn what_waits_rises_until_it_is_served_once() {
    let mut low = claimant(0, 0, None);
    let mut served = Vec::new();
    for now in 0..300 {
        // A step of the highest priority is always there.
        let mut high = claimant(100, now, Some(now - 1));
        if low.turn(&high, at(now)) == Ordering::Less {
            served.push(now);
            low.served_at = Some(at(now));
        } else {
            high.served_at = Some(at(now));
        }
    }
    assert_eq!(served, [100, 200]);
}

fn waiter(gpus: u32, claimant: Claimant, served: Option<i64>) -> Waiter {
    Waiter { claimant, asks: Capacity::new(gpus, 0, 0), served_at: served.map(at) }
}

#[test]
fn a_large_step_that_has_waited_long_keeps_what_becomes_free() {
    let free = Capacity::new(3, 4, 0);
    let small = waiter(1, claimant(50, 9, Some(9)), Some(9));
    let keeps = |large: &Waiter, small: &Waiter, now: i64| large.keeps_from(small, &free, at(now));
    // Its workflow is given other steps all the time: that is none of its own.
    let large = waiter(8, claimant(50, 0, Some(9)), None);
    assert!(!keeps(&large, &small, 9), "it has not waited long");
    assert!(keeps(&large, &small, 10));
    assert!(!keeps(&small, &large, 100), "the smaller one passes nobody over");
    assert!(!keeps(&waiter(8, large.claimant, Some(1)), &small, 10), "one like it was served a moment ago");
    let urgent = waiter(1, claimant(100, 59, None), None);
    assert!(!keeps(&large, &urgent, 49) && keeps(&large, &urgent, 60), "priority counts, and ageing");
    let cpus = Waiter { asks: Capacity::new(0, 4, 0), ..small };
    assert!(!keeps(&large, &cpus, 10), "it takes nothing that is waited for");
    let both = Waiter { asks: Capacity::new(8, 1, 0), ..large };
    assert!(keeps(&both, &cpus, 10), "one CPU of four is");
}

#[test]
fn one_host_is_kept_the_one_that_lacks_least() {
    let with = |worker: &str, used: u32| Host { used: Capacity::new(used, 0, 0), ..host(worker, 8, &[]) };
    let all = needs(8, 0.0, 0, &[]);
    let kept = |hosts: &[Host]| kept_host(&all, hosts).map(|host| host.worker.clone());
    assert_eq!(kept(&[with("a", 4), with("b", 2), with("c", 2)]).as_deref(), Some("b"));
    assert_eq!(kept(&[with("a", 1), with("b", 2)]).as_deref(), Some("a"));
    let silent = Host { state: HostState::Silent, ..with("a", 0) };
    assert_eq!(kept(&[silent, host("b", 4, &[]), with("c", 8)]).as_deref(), Some("c"));
    assert_eq!(kept(&[host("b", 4, &[])]), None);
}

#[test]
fn a_step_for_eight_gpus_is_given_them_while_others_always_want_one() {
    let mut used = [1_u32; 8];
    let large = waiter(8, claimant(50, 0, None), None);
    // Each minute one of the small steps is over, and another one waits.
    for now in 1..100 {
        used[usize::try_from(now).unwrap() % 8] = 0;
        let free = Capacity::new(8 - used.iter().sum::<u32>(), 4, 0);
        if free.holds(&large.asks) {
            assert_eq!(now, 17, "ten minutes of waiting, then eight steps to their end");
            return;
        }
        let small = waiter(1, claimant(50, now, Some(now - 1)), Some(now - 1));
        if !large.keeps_from(&small, &free, at(now)) {
            used[usize::try_from(now).unwrap() % 8] = 1;
        }
    }
    panic!("it never had its turn");
}
