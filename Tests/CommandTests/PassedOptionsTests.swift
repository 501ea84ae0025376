import ArgumentParser
import Testing

@testable import pageferry

@Suite("Options that pass to a child")
struct PassedOptionsTests {
    private static let agent = [
        "--qmp", "unix:/run/a.sock", "--qmp", "tcp:[::1]:7000", "--insecure", "--lease", "/leases/web",
        "--recover-for", "7s", "--peer-timeout", "123456789ns", "--poll", "99us", "--log-level", "debug",
        "--no-log-times", "--log-format", "json", "--config", "/srv/config.yaml", "--http", "127.0.0.1:9100",
        "--http-control", "/run/token", "--http-host", "node1", "--end-with-input", "--leave-with-input", "--witness",
        "/run/witness",
    ]
    private static let arrival = ["--allow-hook", "/srv/hook", "--allow-disk", "/srv", "--allow-disk", "/var"]
    private static let serial = ["--serial", "/dev/stderr"]
    private static let workload = [
        "--workload", "kv", "--memory", "6GiB", "--page-size", "2MiB", "--regions", "3", "--threads", "5", "--write",
        "0.1", "--think-time", "11us", "--seed", "\(UInt64.max)", "--load", "a \"file\"", "--device",
        "slow:load=0.1", "--device", "disk:/srv/a disk", "--device", "hook:/srv/hook", "--no-ledger",
    ]
    private static let push = [
        "--max-bandwidth", "100MiB", "--push-lanes", "4", "--release-ram", "--compress", "zstd",
    ]
    private static let faults = ["--prefetch", "streams", "--prefetch-window", "3", "--fault-threads", "2"]
    /// Options that exclude others, and so have their default in a valid command line.
    private static let excluded: Set = [
        "serialOption.serial", "pushOptions.noPush", "workloadOptions.vcpus", "faultOptions.inThread",
    ]

    /// Returns the value of each option of a command as a text, by the option's place in the groups of options.
    private func values(of options: any ParsableArguments, in place: String = "") -> [String: String] {
        Mirror(reflecting: options).children.reduce(into: [:]) { all, child in
            let name = place + (child.label ?? "").drop { $0 == "_" }
            if let group = child.value as? any Group {
                all.merge(values(of: group.options, in: name + ".")) { one, _ in one }
            } else {
                all[name] = "\(child.value)"
            }
        }
    }

    /// Makes the command with another value than its default for every option.
    ///
    /// Options that exclude others are set after the parse, which would refuse them.
    private func source() throws -> SourceCommand {
        let words = PassedOptionsTests.agent + PassedOptionsTests.workload + PassedOptionsTests.push
        var source = try SourceCommand.parse(words + PassedOptionsTests.arrival + ["--on-start-failure", "wait"])
        source.guest = GuestOption(argument: "firecracker:/run/vm.sock")
        source.attach = "/run/attach.sock"
        source.workloadOptions.vcpus = 2
        source.pushOptions.noPush = true
        source.serialOption.serial = "/dev/stderr"
        return source
    }

    /// Makes the command like ``source()``.
    private func destination() throws -> DestinationCommand {
        let words = PassedOptionsTests.agent + PassedOptionsTests.faults + PassedOptionsTests.arrival
        var destination = try DestinationCommand.parse(
            words + PassedOptionsTests.serial + ["--listen", "127.0.0.1:7000", "--stopped"]
        )
        destination.guest = GuestOption(argument: "firecracker:/run/vm.sock")
        destination.attach = "/run/attach.sock"
        destination.faultOptions.inThread = true
        return destination
    }

    private func expectSame<Command: AgentProgram>(_ command: Command) throws {
        let (before, defaults) = (values(of: command), values(of: try Command.withDefaults()))
        let after = values(of: try PassedOptions.read(Command.self, from: PassedOptions.json(command)))
        #expect(!before.isEmpty)
        for (name, value) in before {
            #expect(defaults[name] != value, "\(name) needs another value than its default in this test")
            #expect(after[name] == value, "\(name) is lost")
        }
        // Options that are not set pass as well.
        let unset = try PassedOptions.read(Command.self, from: PassedOptions.json(Command.withDefaults()))
        #expect(values(of: unset) == defaults)
    }

    @Test("have the same values there, whichever they are")
    func sameValues() throws {
        try expectSame(source())
        try expectSame(destination())
    }

    @Test("of the demo reach its source, its destination, or both")
    func demo() throws {
        let words = PassedOptionsTests.workload + PassedOptionsTests.push + PassedOptionsTests.faults
        let demo = try DemoCommand.parse(words + ["--poll", "99us", "--json", "--timeout", "9s"])
        let defaults = values(of: try DemoCommand.parse([]))
        let agents = try demo.migration()
        let (source, destination) = (values(of: agents.source), values(of: agents.destination))
        // A group of options may lie deeper in the agents' groups.
        func has(_ values: [String: String], _ name: String, _ value: String) -> Bool {
            values.contains { $0.value == value && ".\($0.key)".hasSuffix(".\(name)") }
        }
        let own = ["json", "timeout", "folder.report", "configurationOptions.config", "quietOption.quiet"]
        for (name, value) in values(of: demo) where !own.contains(name) {
            #expect(has(source, name, value) || has(destination, name, value), "\(name) is lost")
            guard !PassedOptionsTests.excluded.contains(name) else { continue }
            #expect(defaults[name] != value, "\(name) needs another value than its default in this test")
        }
        #expect(agents.destination.arrivalOptions.allowHook == ["/srv/hook"])
        #expect(agents.destination.arrivalOptions.allowDisk == ["/srv"])
    }

    @Test("of the demo's guest in a virtual machine reach both agents")
    func virtualMachine() throws {
        let words = ["--workload", "kvm", "--vcpus", "2", "--memory", "64MiB"] + PassedOptionsTests.serial
        let agents = try DemoCommand.parse(words).migration()
        #expect(agents.source.workloadOptions.vcpus == 2)
        #expect(agents.source.serialOption.serial == "/dev/stderr")
        #expect(agents.destination.serialOption.serial == "/dev/stderr")
    }

    @Test("are refused if the child cannot read them", arguments: ["", "{}", "[]", "source"])
    func unreadable(options: String) throws {
        let finished = try Executable.pageferry("child-agent", "source", "--qmp", "/tmp/a.sock", options)
        #expect(finished.status != 0 && !finished.errors.isEmpty, "\(finished)")
    }
}

/// A group of options.
private protocol Group {
    var options: any ParsableArguments { get }
}

extension OptionGroup: Group {
    fileprivate var options: any ParsableArguments { wrappedValue }
}
