import LinuxSystem

/// A process of version 3 that runs a workload, played by the test: private memory of this test process.
final class RunningProcess: Sendable {
    /// The requests of the agent, by their numbers in the article.
    enum Request: UInt32 {
        case refused = 1, device, load, run, complete, accepted, data
        case prepare, stop, save, depart, resume, release, verify, free
    }

    let socket: StreamSocket
    let memory: MemoryRegion

    init(at path: String, pageCount: Int = 4) throws {
        socket = try StreamSocket(connectingTo: .unix(path: path))
        memory = try MemoryRegion(name: "memory", pageCount: pageCount)
    }

    /// The hand-off, with correct fields unless told otherwise.
    static func handOff(
        role: UInt16 = 1,
        abilities: UInt16 = 0,
        name: String = "store",
        reserved: UInt16 = 0,
        pageSize: UInt32 = 4096,
        _ regions: [(address: UInt64, byteCount: UInt64, file: UInt32, offset: UInt64)]
    ) -> [UInt8] {
        var bytes: [UInt8] = []
        AttachingProcess.append(UInt32(0x4f48_4750), to: &bytes)
        for number in [3, UInt16(regions.count), role, abilities, UInt16(name.utf8.count), reserved] {
            AttachingProcess.append(number, to: &bytes)
        }
        for region in regions {
            AttachingProcess.append(region.address, to: &bytes)
            AttachingProcess.append(region.byteCount, to: &bytes)
            AttachingProcess.append(pageSize, to: &bytes)
            AttachingProcess.append(region.file, to: &bytes)
            AttachingProcess.append(region.offset, to: &bytes)
        }
        return bytes + name.utf8
    }

    /// The hand-off of this process's memory.
    func handOff(role: UInt16 = 1, abilities: UInt16 = 0, name: String = "store") -> [UInt8] {
        Self.handOff(
            role: role,
            abilities: abilities,
            name: name,
            [(memory.range.address, memory.range.byteCount, 0, 0)]
        )
    }

    /// The next message of the agent; nil if the agent has hung up.
    func next() throws -> (request: Request?, content: [UInt8])? {
        var header = [UInt32](repeating: 0, count: 2)
        guard try header.withUnsafeMutableBytes({ try socket.receive(exactly: $0) }) == 8 else { return nil }
        var content = [UInt8](repeating: 0, count: Int(header[1]))
        _ = try content.withUnsafeMutableBytes { try socket.receive(exactly: $0) }
        return (Request(rawValue: header[0]), content)
    }

    /// Sends a message.
    func send(_ kind: UInt32, _ content: [UInt8] = []) throws {
        var bytes: [UInt8] = []
        AttachingProcess.append(kind, to: &bytes)
        AttachingProcess.append(UInt32(content.count), to: &bytes)
        try socket.send(bytes + content)
    }

    /// Answers a request with DONE.
    func done(_ request: Request, _ content: [UInt8] = []) throws {
        try send(0x101, number(request.rawValue) + content)
    }

    /// Answers a request with FAILED.
    func failed(_ request: Request, _ reason: String) throws {
        try send(0x102, number(request.rawValue) + reason.utf8)
    }

    /// Sends DEVICE and the state in pieces, each one DATA.
    func device(_ name: String, announcing byteCount: UInt64? = nil, _ pieces: [[UInt8]]) throws {
        let total = byteCount ?? UInt64(pieces.reduce(0) { $0 + $1.count })
        try send(Request.device.rawValue, number(total) + name.utf8)
        for piece in pieces { try send(Request.data.rawValue, piece) }
    }

    /// Numbers as little-endian bytes.
    func number(_ value: some FixedWidthInteger) -> [UInt8] {
        var bytes: [UInt8] = []
        AttachingProcess.append(value, to: &bytes)
        return bytes
    }
}
