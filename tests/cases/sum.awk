# What `make test` and `make prove` say at their end: how many cases of each kind were checked, and each
# model's interleavings and states. Reads the lines that tests/cases/src/lib.rs appends: kind, name, cases.

BEGIN { FS = "\t" }

{ checks[$1]++; cases[$1] += $3 }

$1 == "interleavings" || $1 == "states" { printf "%10d  %s\n", $3, $2 }

END {
    for (kind in checks)
        printf "%s: %d checks, %d cases\n", kind, checks[kind], cases[kind]
}
