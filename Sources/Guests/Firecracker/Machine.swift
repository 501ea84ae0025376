/// Firecracker's answer to a request for its instance information.
package struct Instance: Decodable, Hashable, Sendable {
    /// Whether there is a microVM, and whether it runs.
    package enum State: String, Decodable, Sendable {
        /// No microVM: nothing was booted, and no snapshot was loaded.
        case notStarted = "Not started"
        /// The microVM's vCPUs run.
        case running = "Running"
        /// The microVM's vCPUs are paused.
        case paused = "Paused"
    }

    /// The value of Firecracker's option `--id`.
    package let id: String
    /// Whether the microVM runs.
    package let state: State
}

/// A microVM's vCPUs and memory.
package struct Machine: Codable, Hashable, Sendable {
    /// The size of the pages that the memory consists of, by Firecracker's names.
    package enum Pages: String, Codable, Sendable {
        /// Pages of 4096 bytes.
        case base = "None"
        /// Huge pages of 2 MiB, from hugetlbfs.
        case huge = "2M"
    }

    /// The number of vCPUs.
    package var vCPUs: Int
    /// The size of the memory, in MiB.
    package var memoryMiB: Int
    /// The size of the memory's pages.
    package var pages: Pages

    // Firecracker's keys, after the conversion from snake case by the API's coders.
    enum CodingKeys: String, CodingKey {
        case vCPUs = "vcpuCount"
        case memoryMiB = "memSizeMib"
        case pages = "hugePages"
    }

    /// Makes a machine; Firecracker checks the numbers.
    package init(vCPUs: Int = 1, memoryMiB: Int, pages: Pages = .base) {
        self.vCPUs = vCPUs
        self.memoryMiB = memoryMiB
        self.pages = pages
    }

    /// Reads Firecracker's answer, in which releases before 1.7 leave `huge_pages` out.
    ///
    /// - Throws: `DecodingError` if a key is missing or has another type.
    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        vCPUs = try container.decode(Int.self, forKey: .vCPUs)
        memoryMiB = try container.decode(Int.self, forKey: .memoryMiB)
        pages = try container.decodeIfPresent(Pages.self, forKey: .pages) ?? .base
    }
}

/// The source of a restored microVM's memory.
package enum MemoryBackend: Hashable, Sendable, Encodable {
    /// A memory file, which Firecracker maps.
    case file(String)
    /// A page-fault handler that listens at a Unix socket.
    case handler(socketPath: String)

    /// Writes Firecracker's `mem_backend` object.
    ///
    /// - Throws: the encoder's error.
    package func encode(to encoder: any Encoder) throws {
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
