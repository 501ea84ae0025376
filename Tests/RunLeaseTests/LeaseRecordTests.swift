import Identity
import Testing

@testable import RunLease

@Suite struct LeaseRecordTests {
    private static let text = """
        pageferry run lease 1
        epoch 7
        owner 00112233445566778899aabbccddeeff
        token 42
        started yes

        """

    @Test func `a record has one text form`() {
        let owner = "00112233445566778899aabbccddeeff"
        let record = LeaseRecord(epoch: 7, owner: owner, token: 42, started: true)
        #expect(record.text == LeaseRecordTests.text)
        for record in [record, LeaseRecord(epoch: .max, owner: owner, token: RunToken(.max), started: false)] {
            #expect(LeaseRecord(text: Array(record.text.utf8)) == record)
            #expect(record.text.utf8.count <= LeaseRecord.maximumByteCount)
        }
    }

    @Test func `a record says whether its owner runs, has the lease back, or has released it`() throws {
        let owner = "00112233445566778899aabbccddeeff"
        func standing(_ token: RunToken, _ started: Bool) -> LeaseRecord.Standing {
            LeaseRecord(epoch: 7, owner: owner, token: token, started: started).standing
        }
        #expect(standing(0, true) == .holding && standing(42, true) == .holding)
        #expect(standing(42, false) == .givenBack)
        #expect(standing(0, false) == .released)
        let released = try LeaseRecord(epoch: 7, owner: owner, token: 42, started: true).release()
        #expect(released == LeaseRecord(epoch: 8, owner: owner, started: false))
    }

    @Test func `a record that is cut off anywhere or too long is refused`() {
        let bytes = Array(LeaseRecordTests.text.utf8)
        for count in 0..<bytes.count { #expect(LeaseRecord(text: Array(bytes[..<count])) == nil) }
        for more in ["\n", " ", "\0", "epoch 8\n"] { #expect(LeaseRecord(text: bytes + Array(more.utf8)) == nil) }
    }

    @Test(
        arguments: [
            ("epoch 7", "epoch 0"), ("epoch 7", "epoch 07"), ("epoch 7", "epoch +7"), ("epoch 7", "epoch -7"),
            ("epoch 7", "Epoch 7"), ("epoch 7\n", "epoch 7\n\n"), ("epoch 7", "epoch 18446744073709551616"),
            ("lease 1", "lease 2"), ("eeff", "eef"), ("eeff", "EEFF"), ("eeff", "eefg"), ("42", "x"), ("yes", "maybe"),
            ("\n", "\r\n"),
        ]
    )
    func `a record in any other form is refused`(part: String, other: String) {
        #expect(LeaseRecord(text: Array(LeaseRecordTests.text.replacing(part, with: other).utf8)) == nil)
    }
}
