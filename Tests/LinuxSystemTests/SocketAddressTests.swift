import LinuxSystem
import OwnThread
import Testing

@Suite(.ownThread)
struct SocketAddressTests {
    @Test(arguments: [
        ("tcp:127.0.0.1:4444", SocketAddress.tcp(host: "127.0.0.1", port: 4444)),
        ("host-1:0", .tcp(host: "host-1", port: 0)),
        ("[::1]:65535", .tcp(host: "::1", port: 65535)),
        ("tcp:[fe80::1%eth0]:1", .tcp(host: "fe80::1%eth0", port: 1)),
        ("unix:relative", .unix(path: "relative")),
        ("/run/agent", .unix(path: "/run/agent")),
        ("./agent:1", .unix(path: "./agent:1")),
        ("../agent", .unix(path: "../agent")),
    ])
    func `each form of an address is read`(text: String, address: SocketAddress) throws {
        #expect(try SocketAddress(text) == address)
        #expect(try SocketAddress(address.description) == address)
    }

    @Test(arguments: [
        ("", "no port"), ("host", "no port"), ("host:", "a port is a number from 0 to 65535"),
        ("host:65536", "a port is a number from 0 to 65535"), ("host:-1", "a port is a number from 0 to 65535"),
        ("host:x", "a port is a number from 0 to 65535"), (":1", "no host"), ("tcp::1", "no host"), ("[]:1", "no host"),
        ("::1:4444", "an IPv6 address must be in brackets"),
        ("unix:", "a socket's path has 1 to 4095 bytes"),
        ("/" + String(repeating: "x", count: 4095), "a socket's path has 1 to 4095 bytes"),
    ])
    func `a bad address is refused with the valid forms`(text: String, reason: String) throws {
        let error = try #require(throws: SocketAddressError.self) { _ = try SocketAddress(text) }
        #expect("\(error)" == "'\(text)' is not a socket address: \(reason); write tcp:HOST:PORT or unix:PATH")
    }

    @Test(arguments: [
        ("localhost:1", true), ("127.0.0.1:1", true), ("127.8.9.1:1", true), ("[::1]:1", true), ("/run/agent", true),
        ("0.0.0.0:1", false), ("[::]:1", false), ("10.0.0.1:1", false), ("127.example.org:1", false),
        ("127.0.0.1.example.org:1", false),
    ])
    func `only this host reaches a local address`(text: String, isLocal: Bool) throws {
        #expect(try SocketAddress(text).isLocal == isLocal)
    }
}
