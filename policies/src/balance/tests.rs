use super::*;
use proptest::prelude::*;
use std::cell::Cell;

/// Policy under a name, to be asked for one choice.
type Policy = (&'static str, fn(&[Candidate], u64) -> Option<usize>);

const POLICIES: [Policy; 4] = [
    ("load", by_load),
    ("turn", |all, random| {
        turns_of(all).choose(all.len(), |index| all[index], random)
    }),
    ("hash", |all, random| {
        hash::choose(all.len(), |index| all[index], random)
    }),
    ("chance", |all, random| by_chance(all.len(), |index| all[index], random)),
];

fn by_load(all: &[Candidate], random: u64) -> Option<usize> {
    load::choose(all.len(), |index| all[index], |_| true, random)
}

fn turns_of(all: &[Candidate]) -> Turns {
    Turns::new(&all.iter().map(|candidate| candidate.weight).collect::<Vec<_>>(), 0)
}

fn candidates(count: usize) -> Vec<Candidate> {
    (0..count as u64)
        .map(|name| Candidate::new(hash::of(&name.to_be_bytes())))
        .collect()
}

/// Counts how often each candidate is chosen in 6,000 choices.
fn chosen(all: &[Candidate], mut choose: impl FnMut(u64) -> Option<usize>) -> Vec<u32> {
    let mut chosen = vec![0; all.len()];
    for number in 0..6_000 {
        chosen[choose(derive(7, number)).expect("one is not out")] += 1;
    }
    chosen
}

/// Shares of the choices in percent.
fn shares(all: &[Candidate], choose: impl FnMut(u64) -> Option<usize>) -> Vec<u32> {
    chosen(all, choose).iter().map(|count| (count + 30) / 60).collect()
}

/// One letter for each candidate: (u)p, (l)eaving, last (r)esort or (o)ut, in capitals if it was tried; then `!` if it
/// was tried last.
fn read(letters: &str) -> Vec<Candidate> {
    let mut all = candidates(0);
    for letter in letters.chars() {
        if letter == '!' {
            all.last_mut().expect("a letter comes before it").tried = Tried::Latest;
            continue;
        }
        all.push(Candidate {
            availability: match letter.to_ascii_lowercase() {
                'u' => Availability::Up,
                'l' => Availability::Leaving,
                'r' => Availability::LastResort,
                _ => Availability::Out,
            },
            tried: if letter.is_uppercase() {
                Tried::Before
            } else {
                Tried::No
            },
            ..Candidate::new(all.len() as u64)
        });
    }
    all
}

#[test]
fn each_policy_takes_the_best_class_first() {
    let check = |letters: &str, expected: &[usize]| {
        let all = read(letters);
        for (name, choose) in POLICIES {
            for number in 0..50 {
                let choice = choose(&all, derive(3, number));
                assert!(
                    choice.map_or(expected.is_empty(), |choice| expected.contains(&choice)),
                    "{name} {letters}: {choice:?}"
                );
            }
        }
    };
    check("", &[]);
    check("o", &[]);
    check("oo", &[]);
    check("u", &[0]);
    check("U!", &[0]);
    check("r", &[0]);
    check("ur", &[0]);
    check("lu", &[1]);
    check("lr", &[0]);
    check("ro", &[0]);
    // A call that failed tries another one, also one that is leaving or not up.
    check("U!u", &[1]);
    check("U!l", &[1]);
    check("U!r", &[1]);
    check("U!o", &[0]);
    // All were tried: not the latest, if possible, and one that is up, if possible.
    check("U!U", &[1]);
    check("U!UU", &[1, 2]);
    check("UU!R", &[0]);
    check("U!R", &[0]);
    check("R!L", &[1]);
    check("R!R", &[1]);
    // The same among more candidates than are looked at.
    check(&format!("{}u", "r".repeat(40)), &[40]);
    check(&format!("{}r", "o".repeat(40)), &[40]);
    check(&"o".repeat(40), &[]);
}

#[test]
fn load_takes_the_cheapest() {
    let check = |calls: &[(u32, u64, u32)], expected: usize| {
        let all: Vec<_> = calls
            .iter()
            .map(|(in_flight, milliseconds, weight)| Candidate {
                in_flight: *in_flight,
                latency: milliseconds * 1_000_000,
                weight: *weight,
                // Keeps chance out.
                in_doubt: true,
                ..Candidate::new(0)
            })
            .collect();
        for number in 0..50 {
            assert_eq!(by_load(&all, derive(5, number)), Some(expected), "{calls:?}");
        }
    };
    check(&[(3, 20, 1), (2, 20, 1)], 1);
    check(&[(3, 20, 1), (0, 100, 1)], 0);
    check(&[(5, 20, 1), (0, 100, 1)], 1);
    check(&[(4, 20, 2), (3, 20, 1)], 0);
    check(&[(6, 20, 100), (4, 20, 50)], 0);
    // Nothing is known of an endpoint: it is taken for an average one.
    check(&[(2, 10, 1), (0, 0, 1), (3, 30, 1)], 1);
    check(&[(1, 0, 1), (0, 0, 1)], 1);
    // Below a millisecond there is no difference.
    check(&[(1, 0, 1), (0, 1, 1)], 1);
}

#[test]
fn at_rest_load_keeps_the_weights() {
    let of = |weights: &[u32]| -> Vec<_> {
        let with = |weight: &u32| Candidate {
            weight: *weight,
            ..Candidate::new(0)
        };
        weights.iter().map(with).collect()
    };
    let check = |weights: &[u32], expected: &[u32]| {
        let all = of(weights);
        let shares = shares(&all, |random| by_load(&all, random));
        assert!(
            shares
                .iter()
                .zip(expected)
                .all(|(is, wanted)| is.abs_diff(*wanted) <= 2),
            "{weights:?} {shares:?}"
        );
    };
    check(&[1, 1], &[50, 50]);
    check(&[3, 1], &[75, 25]);
    check(&[1, 1, 2], &[25, 25, 50]);
    // Of many, three are drawn.
    let all = candidates(50);
    let chosen = chosen(&all, |random| by_load(&all, random));
    assert!(chosen.iter().all(|count| (70..180).contains(count)), "{chosen:?}");
}

#[test]
fn chance_goes_by_weight_alone() {
    let mut all = candidates(3);
    (all[0].weight, all[0].in_flight, all[0].latency) = (2, 1_000, 1_000_000_000);
    (all[1].weight, all[1].warm) = (2, 0.5);
    let by_chance = |random| by_chance(all.len(), |index| all[index], random);
    let shares = shares(&all, by_chance);
    for (share, expected) in shares.iter().zip([50, 25, 25]) {
        assert!(share.abs_diff(expected) <= 2, "{shares:?}");
    }
}

#[test]
fn of_many_load_takes_the_best_of_three() {
    let mut all = candidates(100);
    all.iter_mut().for_each(|candidate| candidate.latency = 20_000_000);
    // Three draws all meet one of the thirty busy ones in under 3 % of the choices.
    all[..30].iter_mut().for_each(|candidate| candidate.in_flight = 50);
    let chosen = chosen(&all, |random| by_load(&all, random));
    let busy: u32 = chosen[..30].iter().sum();
    assert!((60..240).contains(&busy), "{busy}");
}

#[test]
fn a_slow_endpoint_keeps_a_small_share_unless_it_is_in_doubt() {
    let mut all = candidates(3);
    for (candidate, (latency, in_flight)) in all.iter_mut().zip([(20, 18), (20, 18), (200, 4)]) {
        (candidate.latency, candidate.in_flight) = (latency * 1_000_000, in_flight);
    }
    let check = |all: &[Candidate], expected: std::ops::RangeInclusive<u32>| {
        let chosen = chosen(all, |random| by_load(all, random));
        assert!(expected.contains(&chosen[2]), "{chosen:?}");
    };
    check(&all, 70..=130);
    all[2].in_doubt = true;
    check(&all, 0..=0);
    // Nor if it has as much to do as the others.
    (all[2].in_doubt, all[2].in_flight) = (false, 20);
    check(&all, 0..=0);
    // Nor with a call that failed elsewhere.
    (all[2].in_flight, all[0].tried) = (4, Tried::Latest);
    check(&all, 0..=0);
}

#[test]
fn an_endpoint_that_is_due_gets_one_call() {
    let mut all = candidates(3);
    all.iter_mut().for_each(|candidate| candidate.latency = 20_000_000);
    (all[2].due, all[2].latency, all[2].in_doubt) = (true, 5_000_000_000, true);
    let taken = Cell::new(0);
    let once = |index| index == 2 && taken.replace(taken.get() + 1) == 0;
    let choose = |random| load::choose(all.len(), |index| all[index], once, random);
    assert_eq!(choose(1), Some(2));
    assert!(
        (0..100).all(|number| choose(number) != Some(2)),
        "another worker has it"
    );
    // A call that failed elsewhere is not spent on it.
    all[0].tried = Tried::Latest;
    assert!((0..100).all(|number| by_load(&all, number) == Some(1)));
    // Nor is an endpoint asked that is not up.
    (all[0].tried, all[2].availability) = (Tried::No, Availability::LastResort);
    assert!((0..100).all(|number| by_load(&all, number) != Some(2)));
}

#[test]
fn an_endpoint_that_warms_up_gets_less() {
    let mut all = candidates(3);
    all[2].warm = 0.1;
    for (name, choose) in &POLICIES[..1] {
        let shares = shares(&all, |random| choose(&all, random));
        assert!((3..=7).contains(&shares[2]), "{name} {shares:?}");
    }
    let turns = turns_of(&all);
    let shares = shares(&all, |random| turns.choose(3, |index| all[index], random));
    assert!(
        (2..=7).contains(&shares[2]) && shares[0].abs_diff(shares[1]) <= 3,
        "{shares:?}"
    );
}

fn turns(weights: &[u32], letters: &str, choices: usize) -> Vec<usize> {
    let mut all = read(letters);
    all.iter_mut()
        .zip(weights)
        .for_each(|(candidate, weight)| candidate.weight = *weight);
    let turns = turns_of(&all);
    (0..choices)
        .filter_map(|_| turns.choose(all.len(), |index| all[index], 0))
        .collect()
}

#[test]
fn heavy_endpoints_take_turns_with_light_ones() {
    let check = |weights: &[u32], expected: &[usize]| {
        let up = "u".repeat(weights.len());
        assert_eq!(turns(weights, &up, expected.len()), expected, "{weights:?}");
    };
    check(&[1], &[0, 0]);
    check(&[1, 1], &[0, 1, 0, 1]);
    check(&[5, 1, 1], &[0, 0, 1, 0, 2, 0, 0]);
    check(&[500, 100, 100], &[0, 0, 1, 0, 2, 0, 0]);
    check(&[2, 1], &[0, 1, 0]);
    // A weight of zero is none, and the largest ones make no endless round.
    check(&[0, 1], &[0, 1]);
    let heavy = turns(&[u32::MAX, 1], "uu", 4_097);
    assert_eq!(heavy.iter().filter(|index| **index == 1).count(), 1);
    assert!(turns(&[], "", 3).is_empty());
}

#[test]
fn the_turns_of_an_unusable_endpoint_are_shared_by_the_others() {
    let check = |weights: &[u32], letters: &str, expected: &[usize]| {
        let choices = turns(weights, letters, 600);
        let counts: Vec<_> = (0..weights.len())
            .map(|index| choices.iter().filter(|it| **it == index).count())
            .collect();
        assert_eq!(counts, expected, "{weights:?} {letters}");
    };
    check(&[1, 1], "ru", &[0, 600]);
    check(&[1, 1, 1, 1], "ruuu", &[0, 200, 200, 200]);
    check(&[1, 2, 1], "ouu", &[0, 400, 200]);
    check(&[1, 1, 1], "rU!u", &[0, 0, 600]);
    check(&[1, 1, 1], "rUU!", &[600, 0, 0]);
    let choices = turns(&[100, 1, 1], "ruu", 600);
    let ones = choices.iter().filter(|index| **index == 1).count();
    assert!(!choices.contains(&0) && (280..=320).contains(&ones), "{ones}");
}

/// Gateways of other versions must agree, so these numbers never change.
#[test]
fn the_hash_is_stated_for_good() {
    for (bytes, expected) in [
        ("", 0xf52a_15e9_a9b5_e89b),
        ("acme", 0x130a_7622_2d44_27ef),
        ("http://10.0.0.1:8080", 0x5fa2_e8fe_8004_590c),
    ] {
        assert_eq!(
            hash::of(bytes.as_bytes()),
            expected,
            "{bytes} {:#x}",
            hash::of(bytes.as_bytes())
        );
    }
    let all: Vec<_> = ["http://10.0.0.1:8080", "http://10.0.0.2:8080", "http://10.0.0.3:8080"]
        .map(|name| Candidate::new(hash::of(name.as_bytes())))
        .into();
    let keys = [
        "acme", "globex", "initech", "umbrella", "hooli", "wonka", "stark", "wayne",
    ];
    let choices = keys.map(|key| hash::choose(3, |index| all[index], hash::of(key.as_bytes())).unwrap());
    assert_eq!(choices, [2, 2, 2, 1, 0, 0, 2, 0]);
}

#[test]
fn keys_spread_by_weight_and_only_those_of_a_lost_endpoint_move() {
    let mut all = candidates(4);
    all[3].weight = 2;
    let home = |all: &[Candidate], key: u64| hash::choose(all.len(), |index| all[index], hash::of(&key.to_be_bytes()));
    let before: Vec<_> = (0..6_000).map(|key| home(&all, key).unwrap()).collect();
    for (index, share) in [(0, 1_200), (1, 1_200), (2, 1_200), (3, 2_400)] {
        let keys = before.iter().filter(|home| **home == index).count();
        assert!(keys.abs_diff(share) < 150, "{index}: {keys}");
    }
    all[1].availability = Availability::LastResort;
    for (key, before) in before.iter().enumerate() {
        let after = home(&all, key as u64).unwrap();
        assert!(after != 1 && (after == *before || *before == 1), "{key}");
    }
    // The order of the list plays no part.
    let reversed: Vec<_> = all.iter().rev().copied().collect();
    for key in 0..1_000 {
        assert_eq!(home(&reversed, key).map(|index| 3 - index), home(&all, key));
    }
}

#[test]
fn a_key_stays_while_its_endpoint_holds_few_calls() {
    let mut all = candidates(4);
    let home = hash::choose(4, |index| all[index], 42).unwrap();
    for in_flight in 0..4 {
        all[home].in_flight = in_flight;
        assert_eq!(hash::choose(4, |index| all[index], 42), Some(home), "{in_flight}");
    }
    all[home].in_flight = 4;
    assert_ne!(hash::choose(4, |index| all[index], 42), Some(home));
}

#[test]
fn one_key_cannot_fill_its_endpoint() {
    let mut all = candidates(4);
    for _ in 0..1_000 {
        let choice = hash::choose(4, |index| all[index], 42).unwrap();
        all[choice].in_flight += 1;
        let total: u32 = all.iter().map(|candidate| candidate.in_flight).sum();
        assert!(
            all[choice].in_flight <= (f64::from(total) / 4.0 * 1.25).ceil().max(4.0) as u32,
            "{all:?}"
        );
    }
    assert!(
        all.iter().map(|candidate| candidate.in_flight).max() >= Some(300),
        "it prefers its own: {all:?}"
    );
}

fn any_candidate() -> impl Strategy<Value = Candidate> {
    let availability = prop::sample::select(vec![
        Availability::Up,
        Availability::Leaving,
        Availability::LastResort,
        Availability::Out,
    ]);
    let tried = prop::sample::select(vec![Tried::No, Tried::Before, Tried::Latest]);
    let numbers = (any::<u32>(), 0.0..=1.0_f32, any::<u32>(), any::<u64>(), any::<u64>());
    (availability, tried, numbers, any::<bool>(), any::<bool>()).prop_map(
        |(availability, tried, numbers, due, in_doubt)| {
            let (weight, warm, in_flight, latency, name) = numbers;
            Candidate {
                availability,
                tried,
                weight,
                warm,
                in_flight,
                latency,
                due,
                in_doubt,
                name,
            }
        },
    )
}

proptest! {
    #![proptest_config(cases::counted())]

    /// Whatever the numbers are, each policy chooses one of the best class, and the same one again.
    #[test]
    fn any_candidates_give_one_of_the_best_class(
        all in prop::collection::vec(any_candidate(), 0..40),
        random: u64,
    ) {
        // Turns of huge weights take long to make.
        let all: Vec<_> = all.into_iter().map(|candidate| Candidate { weight: candidate.weight % 50, ..candidate }).collect();
        let best = best_class(all.iter().copied());
        for (name, choose) in POLICIES {
            let choice = choose(&all, random);
            prop_assert_eq!(choice.is_some(), best.is_some(), "{}", name);
            prop_assert_eq!(choice, choose(&all, random), "{}", name);
            if let Some(choice) = choice {
                prop_assert_eq!(Some(all[choice].class()), best, "{} {}", name, choice);
            }
        }
    }

    /// Endpoints that change between two looks cause no panic, and none is chosen that was always out.
    #[test]
    fn candidates_may_change_while_a_choice_is_made(
        all in prop::collection::vec(prop::collection::vec(any_candidate(), 1..4), 0..24),
        random: u64,
    ) {
        let looks = Cell::new(0);
        let candidate = |index: usize| {
            looks.set(looks.get() + 1);
            let versions: &Vec<Candidate> = &all[index];
            versions[looks.get() % versions.len()]
        };
        let weights: Vec<_> = all.iter().map(|versions| versions[0].weight % 50).collect();
        let choices = [
            load::choose(all.len(), candidate, |_| random % 2 == 0, random),
            Turns::new(&weights, random).choose(all.len(), candidate, random),
            hash::choose(all.len(), candidate, random),
            by_chance(all.len(), candidate, random),
        ];
        for choice in choices.into_iter().flatten() {
            prop_assert!(all[choice].iter().any(|candidate| candidate.availability != Availability::Out));
        }
    }
}
