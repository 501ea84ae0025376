import LinuxSystem
import Testing

@testable import Attachments

/// Firecracker's description of its memory, in the JSON of each version.
@Suite struct FirecrackerHandOffTests {
    private func read(_ text: String) throws -> FirecrackerHandOff { try FirecrackerHandOff(Array(text.utf8)) }

    private let range = PageRange(address: 140_178_070_962_176, pageSize: 4096, pageCount: 32768)

    @Test(arguments: [
        // Firecracker 1.1 to 1.6, 1.7 to 1.11, and from 1.12 on.
        ("", false), (#","page_size_kib":4096"#, false), (#","page_size":4096,"page_size_kib":4096"#, true),
        (#","page_size":4096,"from_a_later_version":{"a":[1]}"#, true),
    ])
    func `the hand-off of every version is read`(pageSize: String, keepsSocketOpen: Bool) throws {
        let handOff = try read(
            #"[{"base_host_virt_addr":140178070962176,"size":134217728,"offset":0\#(pageSize)}]"#
        )
        #expect(handOff.regions == [FirecrackerHandOff.Region(range: range, offset: 0)])
        #expect(handOff.keepsSocketOpen == keepsSocketOpen)
    }

    @Test func `either member gives huge pages in bytes, and the newer one takes precedence`() throws {
        for pageSize in [#""page_size_kib":2097152"#, #""page_size":2097152,"page_size_kib":4096"#] {
            let handOff = try read(#"[{"base_host_virt_addr":2097152,"size":4194304,"offset":4096,\#(pageSize)}]"#)
            #expect(handOff.regions[0].range == PageRange(address: 2_097_152, pageSize: 2 << 20, pageCount: 2))
            #expect(handOff.regions[0].offset == 4096)
        }
    }

    @Test func `regions keep the order of the hand-off`() throws {
        let handOff = try read(
            #"[{"base_host_virt_addr":1048576,"size":8192,"offset":4096},{"base_host_virt_addr":4096,"size":4096,"offset":0}]"#
        )
        #expect(handOff.regions.map(\.offset) == [4096, 0])
    }

    @Test(arguments: [
        ("", "is not the JSON"), ("{}", "is not the JSON"), ("[", "is not the JSON"), ("[]", "has 0 regions"),
        (#"[{"base_host_virt_addr":4096,"size":4096}]"#, "is not the JSON"),
        (#"[{"base_host_virt_addr":-4096,"size":4096,"offset":0}]"#, "is not the JSON"),
        (#"[{"base_host_virt_addr":4096,"size":0,"offset":0}]"#, "is no range of pages"),
        (#"[{"base_host_virt_addr":4097,"size":4096,"offset":0}]"#, "is no range of pages"),
        (#"[{"base_host_virt_addr":4096,"size":4095,"offset":0}]"#, "is no range of pages"),
        (#"[{"base_host_virt_addr":18446744073709547520,"size":8192,"offset":0}]"#, "is no range of pages"),
        (#"[{"base_host_virt_addr":4096,"size":4096,"offset":7}]"#, "inside a page"),
        (#"[{"base_host_virt_addr":4096,"size":36028797018963968,"offset":0}]"#, "beyond the first 16 TiB"),
        (#"[{"base_host_virt_addr":4096,"size":4096,"offset":17592186044416}]"#, "beyond the first 16 TiB"),
        (#"[{"base_host_virt_addr":4096,"size":17592186044416,"offset":0}]"#, "have more than 1 TiB together"),
        (#"[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":3}]"#, "pages of 3 bytes"),
        (#"[{"base_host_virt_addr":2097152,"size":4096,"offset":0,"page_size":2097152}]"#, "is no range of pages"),
        (
            #"[{"base_host_virt_addr":4096,"size":8192,"offset":0},{"base_host_virt_addr":8192,"size":4096,"offset":8192}]"#,
            "overlap at address 8192"
        ),
        (
            #"[{"base_host_virt_addr":4096,"size":8192,"offset":0},{"base_host_virt_addr":16384,"size":4096,"offset":4096}]"#,
            "overlap at byte of the snapshot 4096"
        ),
        (
            #"[{"base_host_virt_addr":4096,"size":4096,"offset":0},{"base_host_virt_addr":2097152,"size":2097152,"offset":4096,"page_size":2097152}]"#,
            "pages of another size"
        ),
    ])
    func `a hand-off with bad values is refused`(text: String, reason: String) {
        let error = #expect(throws: AttachmentError.self) { try read(text) }
        #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }

    @Test func `every prefix of a hand-off is refused`() throws {
        let text = #"[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":4096}]"#
        for count in 0..<text.utf8.count {
            #expect(throws: AttachmentError.self) { try FirecrackerHandOff(Array(text.utf8.prefix(count))) }
        }
    }

    @Test func `at most 4096 regions are read`() throws {
        let regions = (1...4097).map { #"{"base_host_virt_addr":\#($0 * 4096),"size":4096,"offset":\#($0 * 4096)}"# }
        let most = regions.dropLast().joined(separator: ",")
        #expect(most.utf8.count + 2 <= FirecrackerHandOff.maxBytes)
        #expect(try read("[\(most)]").regions.count == 4096)
        let error = #expect(throws: AttachmentError.self) { try read("[\(regions.joined(separator: ","))]") }
        #expect(error?.description == "the hand-off has 4097 regions; there are 1 to 4096")
    }

    @Test(arguments: ["\n", " \n\t"], ["", "\0", "\n\0\0", " "])
    func `space before the JSON, and space and zero bytes behind it, are skipped`(
        before: String,
        behind: String
    ) throws {
        let text = #"[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":4096}]"#
        #expect(try read(before + text + behind) == read(text))
    }

    @Test func `the hand-off of StratoVirt is read`() throws {
        let handOff = try read(
            #"{"mappings":[{"base-host-virt-addr":2097152,"size":4194304,"offset":4096,"page-size":2097152}]}"#
        )
        #expect(
            handOff.regions == [
                FirecrackerHandOff.Region(
                    range: PageRange(address: 2_097_152, pageSize: 2 << 20, pageCount: 2),
                    offset: 4096
                )
            ]
        )
        #expect(!handOff.keepsSocketOpen)
    }

    @Test func `a hand-off that comes in parts is gathered, with the descriptor of a later part`() throws {
        let (one, other) = try StreamSocket.pair()
        let userfaultfd = try Userfaultfd()
        let text = Array(#"[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":4096}]"#.utf8)
        try one.stream.send([10])
        let first = try other.stream.receiveDescriptors(maxBytes: FirecrackerHandOff.maxBytes)
        #expect(first.descriptorCount == 0)
        let sender = try JoinedThread(name: "parts") {
            // If a part cannot be sent, the test below fails.
            try? one.stream.send(Array(text.prefix(20)), with: userfaultfd)
            for byte in text.dropFirst(20) {
                MonotonicClock.sleep(nanoseconds: 1_000_000)
                try? one.stream.send([byte])
            }
        }
        let whole = try FirecrackerHandOff.gather(first, from: other.stream)
        sender.join()
        #expect(whole.bytes == [10] + text)
        #expect(whole.descriptorCount == 1)
    }

    @Test func `a hand-off that is never whole is given up after a second`() throws {
        let (one, other) = try StreamSocket.pair()
        try one.stream.send(Array("[{".utf8))
        let first = try other.stream.receiveDescriptors(maxBytes: FirecrackerHandOff.maxBytes)
        let begin = MonotonicClock.now()
        let whole = try FirecrackerHandOff.gather(first, from: other.stream)
        #expect((900_000_000...5_000_000_000).contains(MonotonicClock.now() - begin))
        #expect(whole.bytes == Array("[{".utf8))
        withExtendedLifetime(one) {}
    }
}
