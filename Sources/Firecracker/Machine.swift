/// What Firecracker says of itself.
public struct Instance: Decodable, Hashable, Sendable {
    /// Whether there is a microVM, and what it does.
    public enum State: String, Decodable, Sendable {
        /// It has not booted and loaded no snapshot.
        case notStarted = "Not started"
        /// Its processors run.
        case running = "Running"
        /// Its processors stand still.
        case paused = "Paused"
    }

    /// What it was called by `--id`.
    public let id: String
    /// What its microVM does.
    public let state: State
}

/// A microVM's processors and memory.
public struct Machine: Codable, Hashable, Sendable {
    /// The pages that its memory is mapped in.
    public enum Pages: String, Codable, Sendable {
        /// 4096 bytes.
        case base = "None"
        /// 2 MiB, of hugetlbfs.
        case huge = "2M"
    }

    /// Virtual processors.
    public var vCPUs: Int
    /// MiB of memory.
    public var memoryMiB: Int
    /// The pages that its memory is mapped in.
    public var pages: Pages

    // Firecracker's names, as the API's coders turn them.
    enum CodingKeys: String, CodingKey {
        case vCPUs = "vcpuCount"
        case memoryMiB = "memSizeMib"
        case pages = "hugePages"
    }

    /// Chooses processors and memory.
    public init(vCPUs: Int = 1, memoryMiB: Int, pages: Pages = .base) {
        self.vCPUs = vCPUs
        self.memoryMiB = memoryMiB
        self.pages = pages
    }

    /// Reads what Firecracker says; before 1.7 it says nothing of pages.
    public init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        vCPUs = try container.decode(Int.self, forKey: .vCPUs)
        memoryMiB = try container.decode(Int.self, forKey: .memoryMiB)
        pages = try container.decodeIfPresent(Pages.self, forKey: .pages) ?? .base
    }
}

/// Where a restored microVM's memory is.
public enum SnapshotMemory: Hashable, Sendable, Encodable {
    /// In a file that Firecracker maps itself.
    case file(String)
    /// With the page-fault handler that listens at a Unix socket.
    case handler(socketPath: String)

    /// Writes it as Firecracker's `mem_backend`.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        let (type, path) =
            switch self {
            case .file(let path): ("File", path)
            case .handler(let socketPath): ("Uffd", socketPath)
            }
        try container.encode(type, forKey: .type)
        try container.encode(path, forKey: .path)
    }

    private enum CodingKeys: String, CodingKey {
        case type = "backendType"
        case path = "backendPath"
    }
}
