import LinuxSystem
import Testing

@testable import Attachments

/// What Firecracker says of its memory, in the words of each version.
@Suite struct FirecrackerHandOffTests {
    private func read(_ text: String) throws -> FirecrackerHandOff { try FirecrackerHandOff(Array(text.utf8)) }

    private let range = PageRange(address: 140_178_070_962_176, pageSize: 4096, pageCount: 32768)

    @Test(arguments: [
        // 1.1 to 1.6, 1.7 to 1.11, and from 1.12 on.
        ("", false), (#","page_size_kib":4096"#, false), (#","page_size":4096,"page_size_kib":4096"#, true),
        (#","page_size":4096,"from_a_later_version":{"a":[1]}"#, true),
    ])
    func `every version's words are read`(pageSize: String, keepsSocketOpen: Bool) throws {
        let handOff = try read(
            #"[{"base_host_virt_addr":140178070962176,"size":134217728,"offset":0\#(pageSize)}]"#
        )
        #expect(handOff.regions == [FirecrackerHandOff.Region(range: range, offset: 0)])
        #expect(handOff.keepsSocketOpen == keepsSocketOpen)
    }

    @Test func `huge pages are told in bytes by either word, and the newer one counts`() throws {
        for pageSize in [#""page_size_kib":2097152"#, #""page_size":2097152,"page_size_kib":4096"#] {
            let handOff = try read(#"[{"base_host_virt_addr":2097152,"size":4194304,"offset":4096,\#(pageSize)}]"#)
            #expect(handOff.regions[0].range == PageRange(address: 2_097_152, pageSize: 2 << 20, pageCount: 2))
            #expect(handOff.regions[0].offset == 4096)
        }
    }

    @Test func `regions keep the order in which they are told`() throws {
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
    func `what makes no sense is refused`(text: String, reason: String) {
        let error = #expect(throws: AttachmentError.self) { try read(text) }
        #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }

    @Test func `every prefix of a hand-off is refused`() throws {
        let text = #"[{"base_host_virt_addr":4096,"size":4096,"offset":0,"page_size":4096}]"#
        for count in 0..<text.utf8.count {
            #expect(throws: AttachmentError.self) { try FirecrackerHandOff(Array(text.utf8.prefix(count))) }
        }
    }

    @Test func `more than 64 regions are refused`() {
        let regions = (1...65).map { #"{"base_host_virt_addr":\#($0 * 4096),"size":4096,"offset":\#($0 * 4096)}"# }
        #expect(throws: AttachmentError.self) { try read("[\(regions.joined(separator: ","))]") }
    }
}
