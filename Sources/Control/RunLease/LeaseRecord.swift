package import Identity

/// One entry of a run lease: which agent may run a workload from one epoch on.
package struct LeaseRecord: Hashable, Sendable {
    /// The number of this change: the first record has 1, and each later record has one more than the record it
    /// replaces.
    package let epoch: UInt64
    /// The instance id of the process that holds or held the lease, as 32 hexadecimal digits.
    package let owner: String
    /// The token of the RUN for which the lease was taken; 0 if the lease was taken for no RUN.
    package let token: RunToken
    /// Whether the owner has committed to run the workload.
    package let started: Bool

    /// Makes a record.
    ///
    /// The epoch must be at least 1, and the owner 32 hexadecimal digits in lower case.
    package init(epoch: UInt64, owner: String, token: RunToken = .none, started: Bool) {
        precondition(epoch > 0, "epochs begin with 1")
        precondition(LeaseRecord.isInstance(owner), "an owner is named by 32 hexadecimal digits")
        self.epoch = epoch
        self.owner = owner
        self.token = token
        self.started = started
    }

    /// What a record says about the workload.
    package enum Standing: Hashable, Sendable {
        /// The owner runs the workload, or has committed to start it: `started yes`.
        case holding
        /// The destination executed nothing and returned the lease to the owner, who still holds it: `started no` with
        /// RUN's token.
        case givenBack
        /// No agent runs the workload, and any agent may take the lease next: `started no` with token 0.
        case released
    }

    /// What this record says about the workload.
    package var standing: Standing {
        if started { return .holding }
        return token == .none ? .released : .givenBack
    }

    /// The record that replaces this one.
    ///
    /// All arithmetic on epochs is here: an epoch comes from a file or a peer, and may be `UInt64.max`.
    ///
    /// - Throws: ``RunLeaseError`` if no epoch follows this one.
    package func next(owner: String, token: RunToken = .none, started: Bool) throws(RunLeaseError) -> LeaseRecord {
        let (next, overflows) = epoch.addingReportingOverflow(1)
        guard !overflows else {
            throw RunLeaseError("epoch \(epoch) of a run lease is the last one: no record can follow it")
        }
        return LeaseRecord(epoch: next, owner: owner, token: token, started: started)
    }

    /// The record that releases the workload after a damaged record, whose owner is not known.
    ///
    /// - Throws: ``RunLeaseError`` if no epoch follows.
    static func release(ofDamaged epoch: UInt64) throws(RunLeaseError) -> LeaseRecord {
        let nobody = String(repeating: "0", count: 32)
        return try LeaseRecord(epoch: epoch, owner: nobody, started: false).release()
    }

    /// The record that follows this one and says that the owner no longer runs the workload.
    ///
    /// - Throws: ``RunLeaseError`` if no epoch follows this one.
    package func release() throws(RunLeaseError) -> LeaseRecord {
        try next(owner: owner, started: false)
    }
}

extension LeaseRecord {
    /// The record in one sentence for people: owner, epoch, and whether the workload runs.
    package var sentence: String {
        switch standing {
        case .holding: "\(owner) runs the workload, or has committed to start it, since epoch \(epoch)"
        case .givenBack:
            "\(owner) has held the lease again since epoch \(epoch), as a destination gave it back and executed nothing"
        case .released: "the lease of \(owner) was released in epoch \(epoch): nobody runs the workload"
        }
    }
}

extension LeaseRecord {
    /// The instances that may run the workload according to this record.
    ///
    /// The result has the owner and, if the owner is a destination that took the lease for a RUN, also the source that
    /// sent that RUN. The destination may have promised since that nothing starts; the source then runs the workload
    /// before the record names the source again.
    ///
    /// - Parameter predecessor: the record of the epoch before; nil if it is not known.
    package func possibleRunners(following predecessor: LeaseRecord?) -> [String] {
        switch standing {
        case .released: []
        case .givenBack: [owner]
        case .holding:
            if token != .none, let source = predecessor?.owner, source != owner { [owner, source] } else { [owner] }
        }
    }
}

extension LeaseRecord {
    /// The longest text form, in bytes.
    static let maximumByteCount = 160

    /// The text form, in ASCII, with a line feed after each line.
    ///
    /// ```
    /// pageferry run lease 1
    /// epoch 7
    /// owner 00112233445566778899aabbccddeeff
    /// token 42
    /// started yes
    /// ```
    var text: String {
        "pageferry run lease 1\nepoch \(epoch)\nowner \(owner)\ntoken \(token.value)\nstarted \(started ? "yes" : "no")\n"
    }

    /// Reads the text form; nil for any other bytes, even one byte longer.
    init?(text bytes: [UInt8]) {
        guard bytes.count <= LeaseRecord.maximumByteCount else { return nil }
        let values = bytes.split(separator: UInt8(ascii: "\n")).map { line in
            String(decoding: line.drop { $0 != UInt8(ascii: " ") }.dropFirst(), as: UTF8.self)
        }
        guard values.count == 5, let epoch = UInt64(values[1]), epoch > 0, LeaseRecord.isInstance(values[2]),
            let token = UInt64(values[3]).map({ RunToken($0) })
        else { return nil }
        self.init(epoch: epoch, owner: values[2], token: token, started: values[4] == "yes")
        // Only the exact text that `text` writes is accepted.
        guard text.utf8.elementsEqual(bytes) else { return nil }
    }

    static func isInstance(_ text: String) -> Bool {
        text.utf8.count == 32 && text.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) }
    }
}
