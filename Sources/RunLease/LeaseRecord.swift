/// Who may run a workload from one epoch on.
public struct LeaseRecord: Hashable, Sendable {
    /// Counts the changes: the first record has 1, and each has one more than the record that it replaces.
    public let epoch: UInt64
    /// The instance id of the process that holds the lease, or held it, as 32 hexadecimal digits.
    public let owner: String
    /// The token of the RUN that it was taken for; 0 if for none.
    public let token: UInt64
    /// Whether the owner has committed to run the workload.
    public let started: Bool

    /// Makes a record.
    ///
    /// - Parameters:
    ///   - epoch: at least 1.
    ///   - owner: 32 hexadecimal digits, in lower case.
    public init(epoch: UInt64, owner: String, token: UInt64 = 0, started: Bool) {
        precondition(epoch > 0, "epochs begin with 1")
        precondition(LeaseRecord.isInstance(owner), "an owner is told by 32 hexadecimal digits")
        self.epoch = epoch
        self.owner = owner
        self.token = token
        self.started = started
    }

    /// What a record says of the workload.
    public enum Standing: Hashable, Sendable {
        /// The owner runs the workload, or has committed to start it: `started yes`.
        case holding
        /// A destination that executed nothing gave the lease back to the owner, who still holds it: `started no` with
        /// the token of the RUN.
        case givenBack
        /// Nobody runs the workload, and any next owner may follow: `started no` with token 0.
        case released
    }

    /// What the record says of the workload.
    public var standing: Standing {
        if started { return .holding }
        return token == 0 ? .released : .givenBack
    }

    /// The record that replaces this one.
    ///
    /// The only arithmetic on epochs is here: an epoch comes from a file or a peer, and may be the last one.
    ///
    /// - Throws: ``RunLeaseError`` where no epoch follows this one.
    public func next(owner: String, token: UInt64 = 0, started: Bool) throws(RunLeaseError) -> LeaseRecord {
        let (next, overflows) = epoch.addingReportingOverflow(1)
        guard !overflows else {
            throw RunLeaseError("epoch \(epoch) of a run lease is the last one: no record can follow it")
        }
        return LeaseRecord(epoch: next, owner: owner, token: token, started: started)
    }

    /// The record that says of this record's owner that it runs nothing any more, and follows this one.
    public func release() throws(RunLeaseError) -> LeaseRecord {
        try next(owner: owner, started: false)
    }
}

extension LeaseRecord {
    /// What the record says, for people: owner, epoch, and whether the workload runs.
    public var sentence: String {
        switch standing {
        case .holding: "\(owner) runs the workload, or has committed to start it, since epoch \(epoch)"
        case .givenBack:
            "\(owner) has held the lease again since epoch \(epoch), as a destination gave it back and executed nothing"
        case .released: "the lease of \(owner) was released in epoch \(epoch): nobody runs the workload"
        }
    }
}

extension LeaseRecord {
    /// The instances that may run the workload by this record: the owner; and where the owner is a destination that took
    /// the lease for a RUN, also the source that sent RUN. The destination may have promised since that nothing starts, and
    /// the source then runs the workload before it has mended the record.
    ///
    /// - Parameter predecessor: the record of the epoch before; nil where that is not known.
    public func possibleRunners(following predecessor: LeaseRecord?) -> [String] {
        switch standing {
        case .released: []
        case .givenBack: [owner]
        case .holding:
            if token != 0, let source = predecessor?.owner, source != owner { [owner, source] } else { [owner] }
        }
    }
}

extension LeaseRecord {
    /// Bytes that the text form has at most.
    static let maximumByteCount = 160

    /// The text form, in ASCII; each line ends with a line feed:
    /// ```
    /// pageferry run lease 1
    /// epoch 7
    /// owner 00112233445566778899aabbccddeeff
    /// token 42
    /// started yes
    /// ```
    var text: String {
        "pageferry run lease 1\nepoch \(epoch)\nowner \(owner)\ntoken \(token)\nstarted \(started ? "yes" : "no")\n"
    }

    /// Reads the text form; nil for anything else, were it longer by one byte.
    init?(text bytes: [UInt8]) {
        guard bytes.count <= LeaseRecord.maximumByteCount else { return nil }
        let values = bytes.split(separator: UInt8(ascii: "\n")).map { line in
            String(decoding: line.drop { $0 != UInt8(ascii: " ") }.dropFirst(), as: UTF8.self)
        }
        guard values.count == 5, let epoch = UInt64(values[1]), epoch > 0, LeaseRecord.isInstance(values[2]),
            let token = UInt64(values[3])
        else { return nil }
        self.init(epoch: epoch, owner: values[2], token: token, started: values[4] == "yes")
        // One form only: what would be written differently was not written here.
        guard text.utf8.elementsEqual(bytes) else { return nil }
    }

    static func isInstance(_ text: String) -> Bool {
        text.utf8.count == 32 && text.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) }
    }
}
