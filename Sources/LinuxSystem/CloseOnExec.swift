import CShims
import SystemPackage

/// Keeps a descriptor that other code made and owns out of programs that this process starts.
///
/// A program that another thread starts between the making and this call inherits it: only who makes a descriptor can
/// rule that out.
public func closeOnExec(_ descriptor: CInt) throws(SystemError) {
    _ = try attempt("make a descriptor close-on-exec") { () throws(Errno) in
        try kernel(.fcntl) { shim_set_close_on_exec(descriptor) }
    }
}
