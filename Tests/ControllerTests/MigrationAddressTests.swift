import LinuxSystem
import OwnThread
import QMP
import Testing

@testable import Controller

@Suite(.ownThread, .timeLimit(.minutes(2)))
struct MigrationAddressTests {
    private func address(_ arguments: [String: JSONValue]) throws -> SocketAddress {
        try QMPCommand(name: "migrate", arguments: arguments).migrationAddress()
    }

    private func channel(_ address: JSONValue, type: JSONValue = "main") -> [String: JSONValue] {
        ["channels": [["channel-type": type, "addr": address]]]
    }

    private let inet: JSONValue = ["transport": "socket", "type": "inet", "host": "::1", "port": "4444"]

    @Test func `an address may be given as a uri or as channels`() throws {
        #expect(try address(["uri": "tcp:host:1"]) == .tcp(host: "host", port: 1))
        #expect(try address(["uri": "unix:/run/m"]) == .unix(path: "/run/m"))
        #expect(try address(channel(inet)) == .tcp(host: "::1", port: 4444))
        let unix: JSONValue = ["transport": "socket", "type": "unix", "path": "/run/m"]
        #expect(try address(channel(unix)) == .unix(path: "/run/m"))
        // The options below have their default values.
        let plain: JSONValue = [
            "transport": "socket", "type": "inet", "host": "b", "port": "7000", "numeric": false, "keep-alive": true,
            "mptcp": false,
        ]
        #expect(try address(channel(plain)) == .tcp(host: "b", port: 7000))
    }

    @Test(arguments: ["migrate", "migrate-incoming"])
    func `exactly one of uri and channels is accepted, as in QEMU`(command: String) async throws {
        let host = Host(workload: try .filled(journal: Journal()), landing: TestLanding(journal: Journal()))
        let both: [String: JSONValue] = channel(inet).merging(["uri": "tcp:b:1"]) { one, _ in one }
        #expect(
            await host.refusal(command, both)
                == "'uri' and 'channels' arguments are mutually exclusive; give exactly one of the two to '\(command)'"
        )
        #expect(await host.refusal(command) == "Parameter 'uri' is missing")
    }

    @Test(arguments: [
        ("fd:7", "an open file descriptor"), ("fd:migrate", "an open file descriptor"),
        ("exec:nc b 1", "a command that is executed"), ("file:/tmp/m,offset=0", "a file"), ("rdma:b:1", "RDMA"),
        ("vsock:3:1", "a vsock socket"),
    ])
    func `an unsupported transport is refused by its name`(uri: String, name: String) async throws {
        let host = Host(workload: try .filled(journal: Journal()), landing: TestLanding(journal: Journal()))
        for command in ["migrate", "migrate-incoming", "migrate-recover"] {
            #expect(
                await host.refusal(command, ["uri": .string(uri)])
                    == "'\(uri)' asks for \(name), which is not supported; use tcp:HOST:PORT or unix:PATH"
            )
        }
    }

    @Test func `channels with an unsupported transport or shape are refused by name`() async throws {
        let host = Host(workload: try .filled(journal: Journal()), landing: TestLanding(journal: Journal()))
        func socket(_ members: [String: JSONValue]) -> [String: JSONValue] {
            channel(.object(members.merging(["transport": "socket"]) { one, _ in one }))
        }
        let instead = "which is not supported; use a socket of type 'inet' or 'unix'"
        let refusals: [([String: JSONValue], String)] = [
            (channel(["transport": "exec", "args": []]), "'channels' asks for a command that is executed, \(instead)"),
            (channel(["transport": "rdma", "host": "b", "port": "1"]), "'channels' asks for RDMA, \(instead)"),
            (channel(["transport": "file", "filename": "m", "offset": 0]), "'channels' asks for a file, \(instead)"),
            (socket(["type": "fd", "str": "7"]), "'channels' asks for an open file descriptor, \(instead)"),
            (socket(["type": "vsock", "cid": "3", "port": "1"]), "'channels' asks for a vsock socket, \(instead)"),
            (channel(["transport": "pigeon"]), "Parameter 'transport' does not accept value 'pigeon'"),
            (socket(["type": "inet6"]), "Parameter 'type' does not accept value 'inet6'"),
            (channel([:]), "Parameter 'transport' is missing"),
            (socket([:]), "Parameter 'type' is missing"),
            (socket(["type": "inet", "host": "b"]), "Parameter 'port' is missing"),
            (socket(["type": "inet", "host": "b", "port": 1]), "Invalid parameter type for 'port', expected: string"),
            (socket(["type": "unix"]), "Parameter 'path' is missing"),
            (socket(["type": "unix", "path": "/m", "host": "b"]), "Parameter 'host' is unexpected"),
            (
                socket(["type": "inet", "host": "b", "port": "1", "to": 9]),
                "Parameter 'to' of a channel's 'addr' is not supported; leave it out"
            ),
            (
                socket(["type": "inet", "host": "b", "port": "1", "ipv4": true]),
                "Parameter 'ipv4' of a channel's 'addr' is not supported; leave it out"
            ),
            (
                socket(["type": "unix", "path": "m", "abstract": true]),
                "Parameter 'abstract' of a channel's 'addr' is not supported; leave it out"
            ),
            (channel(inet, type: "cpr"), "a channel of type 'cpr' is not supported; give one of type 'main'"),
            (channel(inet, type: "side"), "Parameter 'channel-type' does not accept value 'side'"),
            (["channels": []], "'channels' has no channel; give one of type 'main'"),
            (["channels": [1]], "Invalid parameter type for 'channels[0]', expected: object"),
            (["channels": 1], "Invalid parameter type for 'channels', expected: array"),
            (
                ["channels": [["channel-type": "main", "addr": inet], ["channel-type": "main", "addr": inet]]],
                "'channels' has 2 channels; give one of type 'main'"
            ),
            (["uri": 1], "Invalid parameter type for 'uri', expected: string"),
            (["uri": "nowhere"], "'nowhere' is not a socket address: no port; write tcp:HOST:PORT or unix:PATH"),
        ]
        for (arguments, refusal) in refusals {
            #expect(await host.refusal("migrate", arguments) == refusal)
            #expect(await host.refusal("migrate-incoming", arguments) == refusal)
        }
    }
}
