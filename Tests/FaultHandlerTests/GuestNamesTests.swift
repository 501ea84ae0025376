import Attachments
import Testing

@testable import FaultHandler

@Suite("The name of a guest")
struct GuestNamesTests {
    private func handOff(_ members: String) throws -> FirecrackerHandOff {
        let region = #"{"base_host_virt_addr": 4096, "size": 4096, "offset": 0, "page_size": 4096"#
        let further = #"{"base_host_virt_addr": 1048576, "size": 4096, "offset": 4096, "vm_id": "another"}"#
        return try FirecrackerHandOff(Array("[\(region)\(members)}, \(further)]".utf8))
    }

    @Test(
        "is the file name of the socket, or a member of the first region",
        arguments: [
            ("socket", "unix:/run/vm-7.sock", "", "vm-7"), ("socket", "unix:/run/uffd", "", "uffd"),
            ("socket", "unix:/run/.sock", "", nil),
            ("vm_id", "unix:/run/uffd.sock", #", "vm_id": "web-1""#, "web-1"),
            ("vm-id", "unix:/run/uffd.sock", #", "vm_id": "web-1""#, "web-1"),
            ("vm_id", "unix:/run/uffd.sock", "", nil), ("vm_id", "unix:/run/uffd.sock", #", "vm_id": 7"#, nil),
            ("vm_id", "unix:/run/uffd.sock", #", "vm_id": """#, nil), ("size", "unix:/run/uffd.sock", "", nil),
        ] as [(String, String, String, String?)]
    )
    func sources(option: String, socket: String, members: String, name: String?) throws {
        let names = try #require(GuestNames(option))
        #expect(names.name(of: try handOff(members), at: socket) == name)
    }

    @Test("comes from a member with hyphens too, in a hand-off whose members have hyphens")
    func hyphens() throws {
        let text = #"{"mappings": [{"base-host-virt-addr": 4096, "size": 4096, "offset": 0, "vm-id": "web-1"}]}"#
        let handOff = try FirecrackerHandOff(Array(text.utf8))
        for option in ["vm-id", "vm_id"] { #expect(GuestNames(option)?.name(of: handOff, at: "") == "web-1") }
    }

    @Test("is one short line, whatever the process writes")
    func hostile() throws {
        let handOff = try handOff(#", "vm_id": "a\n\u001b[31mb"# + String(repeating: "x", count: 5000) + #"""#)
        let name = try #require(GuestNames("vm_id")?.name(of: handOff, at: ""))
        #expect(name.hasPrefix(#"a\n\u{1b}[31mbxxx"#))
        #expect(name.utf8.count < 200)
    }

    @Test("comes from no other option", arguments: ["", "a b", "ä", "a/b", String(repeating: "a", count: 65)])
    func options(text: String) { #expect(GuestNames(text) == nil) }
}
